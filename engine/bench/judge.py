"""Correctness before speed: what two steps make of the same weights and images, against float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..nets import Layout
from ..space import Member
from ..train import ReferenceBackend
from ..train.backend import Weights
from .contender import Contender, Outcome
from .ours import outcome
from .workload import Precision, Workload, simplified

# Plain PyTorch in float32 comes to 3e-5, 4e-2 and 5e-5 on the workloads; three times that is allowed. Most of the
# update's error is signs: Adam and RMSProp first step by the learning rate in the direction of the gradient's
# sign, and where a gradient is no more than rounding noise the sign is too. That is also why single weights
# cannot be judged. A wrong gradient of any large tensor, or one optimizer for another, gives 0.2 and more.
# Products of fewer bits are judged in float32 first, then as they are by the loss and by what the output layer has
# learnt: 2e-4 and 0.011 with the 11 bits of TF32, 3e-3 and 0.094 with bfloat16, in PyTorch with factors rounded on
# a processor. Gradients further back say nothing there: a unit that few images wake is normalised by a variance
# near 0, which magnifies rounding until some members' whole gradients are off by themselves.
BOUNDS: Mapping[Precision, Mapping[str, float]] = {
    "fp32": {"loss": 1e-4, "update": 0.1, "statistics": 2e-4},
    "tf32": {"loss": 1e-3, "output": 0.03},
    "bf16": {"loss": 1e-2, "output": 0.3},
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How far a contender is from float64.

    Attributes:
        errors: relative errors by what was compared, the largest over the members: ``loss``, ``update`` (the
            change of the trained weights, by its norm), ``output`` (that of the last layer) and, for our
            backends, ``statistics`` (the change of the moving means and variances). PyTorch's running variance is
            another estimator, the unbiased one, so the statistics of what a user would run are not compared.
        precision: of the contender's products.
    """

    errors: Mapping[str, float]
    precision: Precision = "fp32"

    @property
    def complaint(self) -> str | None:
        """What is wrong, for people; None if nothing is."""
        bounds, where = BOUNDS[self.precision], "" if self.precision == "fp32" else f" in {self.precision}"
        wrong = [
            f"relative error of the {name} {error:.1e}{where}, at most {bounds[name]:.0e} is allowed"
            for name, error in self.errors.items()
            if not error <= bounds[name]  # so that NaN is wrong too
        ]
        return "; ".join(wrong) or None


class Judge:
    """Compares contenders with ``ReferenceBackend`` in float64.

    Args:
        workload: its ``checked`` members are trained here too.
    """

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._truths: dict[tuple[bool, bool], list[Outcome]] = {}

    def verdict(self, contender: Contender, outcomes: Sequence[Outcome]) -> Verdict:
        """How far a contender's outcomes are from the truth.

        Raises:
            ValueError: it did not give one outcome for each of the checked members, in order.
        """
        members = self._workload.checked(contender.precision)
        truths = self._truths_for(members, contender)
        if [found.member for found in outcomes] != [truth.member for truth in truths]:
            raise ValueError(f"{contender.name} must give one outcome for each checked member, in order")
        errors: dict[str, float] = {}
        for member, truth, found in zip(members, truths, outcomes, strict=True):
            initial = self._workload.initial_weights(member)
            layout = Layout(member.architecture)
            specs = layout.tensors.values()
            statistic = np.concatenate([np.full(spec.size, spec.is_statistic) for spec in specs])
            last = np.concatenate([np.full(spec.size, spec.layer == layout.layers[-1]) for spec in specs])
            found_here = {"loss": abs(found.loss - truth.loss) / abs(truth.loss)}
            if contender.precision != "fp32":
                found_here["output"] = _relative_error(found, truth, initial, last)
            else:
                found_here["update"] = _relative_error(found, truth, initial, ~statistic)
                if contender.kind == "ours" and statistic.any():
                    found_here["statistics"] = _relative_error(found, truth, initial, statistic)
            for name, error in found_here.items():
                errors[name] = float(np.maximum(error, errors.get(name, 0.0)))  # NaN wins
        return Verdict(errors=errors, precision=contender.precision)

    def _truths_for(self, members: Sequence[Member], contender: Contender) -> list[Outcome]:
        """In float64, of the members as they are or simplified."""
        is_whole = contender.kind == "ours"
        key = is_whole, contender.precision == "fp32"
        if key not in self._truths:
            backend = ReferenceBackend(torch.float64)
            chosen = members if is_whole else [simplified(member) for member in members]
            self._truths[key] = [outcome(backend, self._workload, member) for member in chosen]
        return self._truths[key]


def _relative_error(found: Outcome, truth: Outcome, initial: Weights, where: npt.NDArray[np.bool_]) -> float:
    """The error's norm over the norm of the true change."""
    right = truth.weights[where].astype(np.float64)
    return float(np.linalg.norm(found.weights[where] - right) / np.linalg.norm(right - initial[where]))
