"""Groups held out of training, and what they are for: choosing the best weights, and calibration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional

# Temperatures that are considered lie between exp(-3) and exp(3).
LOG_TEMPERATURES = (-3.0, 3.0)


def hold_out(groups: NDArray[Any], targets: NDArray[Any], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose groups to hold out, evenly over the range (or the classes) of their targets.

    Args:
        groups: of each item [N].
        targets: of each item [N], numbers or class codes.
        share: of the groups to hold out, rounded.
        seed: of the choice.

    Returns:
        Which items are held out [N]; none, if fewer than two items were left to train on.
    """
    names, group = np.unique(groups, return_inverse=True)
    count = round(share * len(names))
    rng = np.random.default_rng(seed)
    mean = np.bincount(group, weights=targets) / np.bincount(group)
    order = rng.permutation(len(names))
    order = order[np.argsort(mean[order], kind="stable")]
    # Every k-th group by order of target, from a random start.
    places = (np.arange(count) + rng.random()) * len(names) / max(count, 1)
    held: NDArray[np.bool_] = np.isin(group, order[places.astype(int)])
    return held if (~held).sum() >= 2 else np.zeros(len(groups), bool)


def temperature(outputs: Tensor, targets: Tensor) -> float:
    """What outputs are best divided by (Guo et al.: "On calibration of modern neural networks", 2017).

    Its logarithm is normal with variance 1 before the items are seen, so that few items say little.

    Args:
        outputs: of a net, before softmax [N, classes].
        targets: true classes [N].

    Returns:
        The most probable temperature.
    """
    outputs = outputs.double()  # which hold the logits of a net that goes astray

    def loss(log: float) -> float:
        told = functional.cross_entropy(outputs / math.exp(log), targets, reduction="sum").item()
        return told + log**2 / 2

    return math.exp(minimize_scalar(loss, bounds=LOG_TEMPERATURES, method="bounded", options={"xatol": 1e-3}).x)


def calibrated_loss(outputs: Tensor, targets: Tensor) -> float:
    """The cross-entropy at the best temperature.

    Nets are compared by it, because what is over-confident alone is mended by the temperature later.
    """
    return functional.cross_entropy(outputs.double() / temperature(outputs, targets), targets).item()
