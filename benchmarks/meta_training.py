"""How many slices a second the deep meta-classifiers train on, on one thread.

    python benchmarks/meta_training.py [--length 5000] [--seconds 5]

A step is what the training loop does: forward, loss, backward, Adam, on 64 slices in memory. Printed are the
median over steps after a warm-up, and the quickest step.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from wse.engine.meta.models.dmc import DMC
from wse.engine.meta.models.light_cnn import LightCNN

BATCH = 64
WARM_UP = 2


def steps(net: nn.Module, values: torch.Tensor, seconds: float) -> list[float]:
    """Seconds that each step took, after the warm-up."""
    targets = torch.arange(len(values)) % 4
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    taken: list[float] = []
    while len(taken) < WARM_UP + 3 or sum(taken[WARM_UP:]) < seconds:
        begun = time.perf_counter()
        loss = functional.cross_entropy(net(values), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        taken.append(time.perf_counter() - begun)
    return taken[WARM_UP:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=5000, help="of a slice, in values")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    values = np.random.default_rng(0).normal(0, 0.05, (BATCH, options.length)).astype(np.float32)
    for name, net in (("light-cnn", LightCNN(4)), ("dmc", DMC(options.length, 4))):
        taken = steps(net, torch.from_numpy(values), options.seconds)
        middle, quickest = BATCH / statistics.median(taken), BATCH / min(taken)
        print(f"{name:10} {middle:8,.0f} slices/s, at best {quickest:,.0f}, {len(taken)} steps")


if __name__ == "__main__":
    main()
