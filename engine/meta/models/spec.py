"""What a study knows of a model before it makes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..targets import Kind

# What `fit` and `predict` of a model get as X, for N items:
#   nothing     [N, 1] zeros, for baselines that look at the answers only
#   setup       a table [N, features] of what is known of each member, without its weights; see `features.py`
#   statistics  [N, features] float64, statistics of the part; see `statistics.py`
#   neurons     a table [N, features] float64, those of the whole network and of its neurons; see `neurons.py`
#   values      [N, length] float32, the whole part, where all networks have the same architecture
#   slices      a `SliceDataset`, which draws other places in every epoch
#   networks    `Items`: whole networks of any architecture
Reads = Literal["nothing", "setup", "statistics", "neurons", "values", "slices", "networks"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Making:
    """What an estimator is made for.

    Attributes:
        kind: classification or regression.
        seed: of everything the estimator draws.
        seconds: what fitting and answering may take; None: no limit. Only deep models heed it.
        answers: how many items the model will be asked about.
        device: that deep models run on, as PyTorch names it.
        progress: called now and then with (share done from 0 to 1, a few words).
    """

    kind: Kind
    seed: int = 0
    seconds: float | None = None
    answers: int = 0
    device: str = "cpu"
    progress: Callable[[float, str], None] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """One model that a study can fit.

    Attributes:
        name: as on the command line.
        title: one line on what it is.
        reads: what it gets.
        make: an unfitted scikit-learn estimator. One that holds items out of its training takes members as
            ``fit(X, y, groups=members)``: deep models for early stopping, linear ones to choose their penalty.
        deep: whether it is trained by gradient descent within ``Making.seconds``.
        any_length: of slices: whether it can be asked about longer or shorter ones than it was fitted to.
    """

    name: str
    title: str
    reads: Reads
    make: Callable[[Making], Any]
    deep: bool = False
    any_length: bool = False
