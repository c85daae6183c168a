"""Measure stored networks again, and compare with what the tables say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

import msgspec
import numpy as np
import torch
from torch.nn import functional

from wse.kernels.inputs import gather

from ..data.search import DataDir
from ..errors import UsageError, WseError
from ..space import Member, Space
from ..zoo import Problem, Zoo, ZooMember
from ..zoo.tables import MEMBERS_FILE, numbers
from .again import load_images
from .backend import Context
from .split import Split

# By how much an output of a network may differ from what was measured in training, as a share of its largest
# output for the image. Another backend sums in another order, and some networks, saturated ones with batch
# normalisation, make hundreds of times as much of that: up to 4e-5 was seen.
_OUTPUT_ERROR = 1e-3
# The loss itself was taken in single precision, which shows where all outputs are close to 0.
_LOSS_ERROR = 1e-6
_BATCH = 500  # images at once


def label_problems(zoo: Zoo, count: int, *, seed: int | None = None, data_dir: DataDir = None) -> list[Problem]:
    """Measure the last snapshots of random members on the test images, in plain PyTorch, and compare.

    Args:
        zoo: whose members; those that have no snapshot are passed over.
        count: how many members; all, if there are fewer.
        seed: of the choice; another one each time if None.
        data_dir: as for ``load``.

    Returns:
        A problem for each member whose set-up, test accuracy or test loss is not what the table says.

    Raises:
        UsageError: ``count`` is below 1, the zoo was imported, an image set is not here, or weights or arithmetic
            were rounded: a network that was measured before it was rounded may be another one afterwards.
        WseError: an image set is damaged, or is not the one the zoo was made with.
    """
    if count < 1:
        raise UsageError(f"`labels` (={count}) must be at least 1")
    manifest = zoo.manifest
    if manifest.imported:
        raise UsageError(
            f"the labels of {zoo.folder} cannot be measured again: it was imported, and wse does not know on "
            "which images its members were measured; leave out --labels"
        )
    precisions = sorted({run.precision for run in manifest.runs})
    if manifest.dtype != "float32" or precisions != ["fp32"]:
        raise UsageError(
            f"the labels of {zoo.folder} cannot be measured again: that takes weights and arithmetic in float32, "
            f"and it has weights in {manifest.dtype} and arithmetic in {' and '.join(precisions)}; leave out "
            "--labels"
        )
    ids = zoo.ids[numbers(zoo.members["snapshots"]) > 0]
    chosen = np.sort(np.random.default_rng(seed).permutation(ids)[:count])
    table = zoo.folder / MEMBERS_FILE
    problems = []
    for run, ids, ids_there in zoo.by_run(chosen):
        space = Space.from_config(run.space)
        members = space.members(run.seed, ids_there.tolist())
        sets = sorted({member.setup.dataset for member in members})
        context = Context(
            settings=space.settings,
            splits={
                name: Split.make(load_images(name, manifest, data_dir), seed=run.seed, settings=space.settings)
                for name in sets
            },
            should_stop=lambda: False,
        )
        for here, member in zip(ids.tolist(), members, strict=True):
            try:
                texts = list(_differences(zoo[here], member, context))
            except WseError as error:
                problems.append(Problem.of(error, table))
            else:
                problems += [Problem(file=table, text=f"member {here}: {text}") for text in texts]
    return problems


def _differences(stored: ZooMember, member: Member, context: Context) -> Iterator[str]:
    """What the table says wrongly of a member, in words."""
    if stored.config != msgspec.structs.asdict(member.setup) or stored.architecture != member.architecture.name:
        yield "its set-up is not the one that the space and the seed give"
        return
    measured = _measure(stored, member, context)
    accuracy, loss = stored.record["test_accuracy"], stored.record["test_loss"]
    if not measured.least <= round(accuracy * measured.images) <= measured.most:
        shares = sorted({f"{count / measured.images:.4f}" for count in (measured.least, measured.most)})
        yield f"its weights have test accuracy {' to '.join(shares)}, the table says {accuracy:.4f}"
    if not (abs(measured.loss - loss) <= measured.loss_error or not (isfinite(measured.loss) or isfinite(loss))):
        yield f"its weights have test loss {measured.loss:.6g}, the table says {loss:.6g}"


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """How many of ``images`` are classified rightly, at least and at most, and the mean loss with its error."""

    images: int
    least: int
    most: int
    loss: float
    loss_error: float


@torch.no_grad()
def _measure(stored: ZooMember, member: Member, context: Context) -> _Measured:
    """Measure a last snapshot, and how far that may be off.

    No cross-entropy changes by more than twice what an output changes by at most.
    """
    network = stored.module()
    split = context.splits[member.setup.dataset]
    images, indices = split.evaluated(member, "test", context.settings)
    labels = split.labels("test")
    least = most = 0
    loss = slack = 0.0
    for first in range(0, len(indices), _BATCH):
        chosen = indices[first : first + _BATCH]
        truth = torch.from_numpy(labels[chosen].astype(np.int64))
        outputs = network(gather(images, chosen)).double()
        right = outputs.gather(1, truth[:, None])[:, 0]
        others = outputs.scatter(1, truth[:, None], -torch.inf).amax(dim=1)
        off = _OUTPUT_ERROR * outputs.abs().amax(dim=1)
        # Two outputs may each be off by so much; where they overflowed, nothing is certain.
        least += int((right - others > 2 * off).sum())
        most += int((~(right - others < -2 * off)).sum())
        loss += float(functional.cross_entropy(outputs, truth, reduction="sum"))
        slack += float(2 * off.sum())
    slack += _LOSS_ERROR * abs(loss)
    n = len(indices)
    return _Measured(images=n, least=least, most=most, loss=loss / n, loss_error=slack / n)
