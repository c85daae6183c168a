"""Deep models as scikit-learn estimators: `DeepClassifier` and `DeepRegressor`.

Any net fits in: see `source.py` for the seam, `loop.py` for how it is trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_is_fitted, validate_data
from torch import Tensor, nn
from torch.nn import functional

from ...zoo.slices import SliceDataset
from .held_out import calibrated_loss, hold_out, temperature
from .loop import Data, Loop, Progress, Recipe, Trained, run
from .pace import Pace, Schedule
from .source import ArraySource, SliceSource, Source
from .spec import Making

# Makes an untrained net from the training items and the number of outputs: net(inputs) -> [B, outputs].
Build = Callable[[Any, int], nn.Module]


class DeepEstimator(BaseEstimator):  # type: ignore[misc]
    """What both estimators share.

    Args:
        net: makes the net, from the source of the training items and the number of outputs.
        source: makes a `Source` of the X of `fit` and `predict`. None: X is an array [N, length] of consecutive
            weights, a `SliceDataset`, or a source itself.
        epochs: passes over the training items, at most.
        batch_size: items of a batch, at most.
        learning_rate: of Adam; the highest of the schedule.
        weight_decay: decoupled from the gradient (AdamW).
        schedule: of the learning rate: ``one-cycle`` over what the epochs or the budget allow, or ``constant``.
        validation: share of the groups (members) that are held out for early stopping and calibration.
        patience: validations without an improvement that end training. The best weights of a one-cycle schedule
            come late: as many as there are epochs let it go to its end.
        looks: how many slices of each item a prediction is the mean of, where slices lie at random places.
        seconds: that `fit` may take, and the answers after it; None: no limit.
        answers: how many items will be predicted; time is kept for them.
        device: as PyTorch names it.
        random_state: seed of the held-out groups, the initial weights, the order of items, dropout. With no limit
            of time, or with enough, a rerun on the CPU has the same bits.
        progress: called now and then with (share done from 0 to 1, a few words).

    Attributes:
        net_: the trained net.
        n_features_in_: values of an item, where X is an array.
        validation_groups_: the groups that were held out, all of them.
        epochs_: passes over the training items, the last one maybe in part (see ``note_``).
        items_: items seen in training.
        stopped_: what ended training: ``epochs``, ``patience``, ``budget`` or ``diverged``.
        note_: what became of the budget, in words.
    """

    def __init__(
        self,
        net: Build,
        *,
        source: Callable[[Any], Source] | None = None,
        epochs: int = 50,
        batch_size: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        schedule: Schedule = "one-cycle",
        validation: float = 0.15,
        patience: int = 10,
        looks: int = 1,
        seconds: float | None = None,
        answers: int = 0,
        device: str = "cpu",
        random_state: Any = None,
        progress: Progress | None = None,
    ) -> None:
        self.net = net
        self.source = source
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.schedule = schedule
        self.validation = validation
        self.patience = patience
        self.looks = looks
        self.seconds = seconds
        self.answers = answers
        self.device = device
        self.random_state = random_state
        self.progress = progress

    def __getstate__(self) -> dict[str, Any]:
        """Pickled estimators leave the callback behind, and their net can be restored without a GPU."""
        state: dict[str, Any] = {**super().__getstate__(), "progress": None}
        if "net_" in state:
            state["net_"] = copy.deepcopy(self.net_).cpu()
        return state

    def _adapt(self, X: Any) -> Source | None:
        """A source of X's items; None if X is an array."""
        if self.source is not None:
            return self.source(X)
        if isinstance(X, SliceDataset):
            return SliceSource(X)
        if isinstance(X, Source):
            return X.only(np.arange(len(X)))  # whose epoch is its owner's, not ours
        return None

    def _training_items(self, X: Any, y: Any, *, numeric: bool) -> tuple[Source, NDArray[Any]]:
        """Items to learn from and their answers [N], both checked."""
        source = self._adapt(X)
        if source is None:
            X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2, y_numeric=numeric)
            source = ArraySource(X)
        y = column_or_1d(y, warn=True)
        check_consistent_length(np.empty(len(source)), y)
        return source, y

    def _fit(
        self,
        source: Source,
        targets: Tensor,
        groups: Any,
        outputs: int,
        loss: Callable[[Tensor, Tensor], Tensor],
        judge: Callable[[Tensor, Tensor], float],
    ) -> Trained:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        members = np.arange(len(source)) if groups is None else column_or_1d(groups)
        check_consistent_length(np.empty(len(source)), members)
        held = hold_out(members, targets.numpy(), self.validation, seed)
        self.validation_groups_ = np.unique(members[held])
        train = Data(source=source.only(~held), targets=targets[~held])
        validation = Data(source=source.only(held), targets=targets[held]) if held.any() else None
        if validation is not None:
            validation.source.set_epoch(0)
        pace = Pace(
            epochs=self.epochs,
            batches=math.ceil(len(train) / self.batch_size),
            seconds=self.seconds,
            answers=self.answers,
            schedule=self.schedule,
        )
        recipe = Recipe(
            learning_rate=self.learning_rate,
            batch_size=self.batch_size,
            weight_decay=self.weight_decay,
            patience=self.patience,
            device=self.device,
            seed=seed,
            progress=self.progress,
        )
        devices = [self.device] if torch.device(self.device).type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # the caller's random numbers are not ours to use up
            torch.manual_seed(seed)
            self.net_ = self.net(train.source, outputs)
            trained = Loop(self.net_, train, validation, loss=loss, judge=judge, recipe=recipe, pace=pace).run()
        self.epochs_, self.items_ = math.ceil(trained.epochs), trained.items
        self.stopped_, self.note_ = trained.stopped, trained.note
        return trained

    def _outputs(self, X: Any, turn: Callable[[Tensor], Tensor]) -> NDArray[Any]:
        """The mean over some looks at each item of what `turn` makes of the net's outputs, in float64."""
        check_is_fitted(self)
        source = self._adapt(X)
        if source is None:
            source = ArraySource(validate_data(self, X, dtype=np.float32, reset=False))
        self.net_.to(self.device)
        looks = []
        for look in range(self.looks if source.random else 1):
            source.set_epoch(-look)
            looks.append(turn(run(self.net_, source, self.device, self.batch_size).double()))
        mean: NDArray[Any] = torch.stack(looks).mean(dim=0).numpy()
        return mean


class DeepClassifier(ClassifierMixin, DeepEstimator):  # type: ignore[misc]
    """A net that tells classes apart: cross-entropy, and probabilities calibrated on the held-out groups.

    See `DeepEstimator` for its arguments.

    Attributes:
        classes_: in the order of the columns of `predict_proba`.
        temperature_: that the net's outputs are divided by.
    """

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train a net.

        Args:
            X: items, see ``source``.
            y: their classes [N].
            groups: the member of each item [N]; None: each item is its own.

        Raises:
            ValueError: what is given does not fit together, or is not finite.
        """
        source, y = self._training_items(X, y, numeric=False)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        targets = torch.from_numpy(codes.astype(np.int64))
        trained = self._fit(source, targets, groups, len(self.classes_), functional.cross_entropy, calibrated_loss)
        self.temperature_ = 1.0
        if trained.validation is not None and trained.outputs is not None:
            self.temperature_ = temperature(trained.outputs, trained.validation.targets)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of the classes [N, classes]."""
        return self._outputs(X, lambda outputs: (outputs / self.temperature_).softmax(dim=1))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable classes [N]."""
        probabilities = self.predict_proba(X)
        chosen: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return chosen


class DeepRegressor(RegressorMixin, DeepEstimator):  # type: ignore[misc]
    """A net that tells a number: mean absolute error of the standardised number.

    See `DeepEstimator` for its arguments.
    """

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train a net.

        Args:
            X: items, see ``source``.
            y: their numbers [N].
            groups: the member of each item [N]; None: each item is its own.

        Raises:
            ValueError: what is given does not fit together, or is not finite.
        """
        source, y = self._training_items(X, y, numeric=True)
        y = np.asarray(y, np.float64)
        assert_all_finite(y, input_name="y")
        self._mean, self._std = float(y.mean()), float(y.std()) or 1.0
        targets = torch.from_numpy(((y - self._mean) / self._std).astype(np.float32))
        self._fit(source, targets, groups, 1, _absolute, lambda outputs, told: _absolute(outputs, told).item())
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """The numbers [N], in the units of y."""
        return self._outputs(X, lambda outputs: outputs[:, 0]) * self._std + self._mean


def deep_estimator(making: Making, net: Build, **options: Any) -> DeepEstimator:
    """An unfitted estimator of the kind that is asked for.

    Args:
        making: what it is made for.
        net: makes the net.
        options: arguments of `DeepEstimator`.
    """
    kind = DeepClassifier if making.kind == "classification" else DeepRegressor
    return kind(
        net,
        seconds=making.seconds,
        answers=making.answers,
        device=making.device,
        random_state=making.seed,
        progress=making.progress,
        **options,
    )


def _absolute(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute error of outputs [N, 1] for targets [N]."""
    return (outputs[:, 0] - targets).abs().mean()
