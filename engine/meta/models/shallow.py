"""Baselines, and models from scikit-learn on tables of numbers.

Each is a plain scikit-learn pipeline. Weights of networks that were initialised or trained in different ways
differ by orders of magnitude, so linear models and the MLP get ranks (``QuantileTransformer``), or standardised
signed square roots where there are too many columns to rank.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.feature_selection import SelectKBest, SelectorMixin
from sklearn.preprocessing import QuantileTransformer
from sklearn.utils.validation import validate_data

from .ridge import GroupedPipeline, GroupedRidge
from .spec import Making, ModelSpec

# Of the weights themselves, gradient boosting gets so many that tell most by themselves (F-test) ...
_BOOSTED_VALUES = 2000
# ... and looks at this share of them at each split.
_BOOST_SHARE_OF_VALUES = 0.2


class RowSpace(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """A rotation into the space that the rows span, where there are more columns than rows.

    A linear model with a penalty on the squared weights finds the same answer there, in less time.
    """

    def fit(self, X: Any, y: Any = None) -> RowSpace:
        """Find the space of the rows [n, columns]."""
        from sklearn.decomposition import PCA

        values = validate_data(self, X, dtype=(np.float64, np.float32))
        self.rotation_ = PCA(svd_solver="full").fit(values) if values.shape[1] > len(values) > 1 else None
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Rows [n, columns] in that space."""
        values = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        rotated: NDArray[Any] = values if self.rotation_ is None else self.rotation_.transform(values)
        return rotated


class KnownColumns(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """The columns that some training row has a number in; nothing is learned of the others.

    They are of tensors and properties that only networks to be tested have. Boosting cannot be fitted to them.
    """

    def fit(self, X: Any, y: Any = None) -> KnownColumns:
        """Find the columns of X [n, columns], where NaN stands for what is missing."""
        values = validate_data(self, X, dtype=(np.float64, np.float32), ensure_all_finite="allow-nan")
        self.known_ = ~np.isnan(values).all(axis=0)
        return self

    def transform(self, X: Any) -> NDArray[Any]:
        """Those columns of rows [n, columns]; if there are none, one of zeros."""
        values = validate_data(self, X, dtype=(np.float64, np.float32), ensure_all_finite="allow-nan", reset=False)
        known: NDArray[Any] = values[:, self.known_]
        return known if known.shape[1] else np.zeros((len(values), 1), values.dtype)


class VaryingColumns(SelectorMixin, BaseEstimator):  # type: ignore[misc]
    """The columns that differ between training rows, or one if none does, as of biases before any training."""

    def fit(self, X: Any, y: Any = None) -> VaryingColumns:
        """Find the columns of X [n, columns]."""
        values = validate_data(self, X, dtype=(np.float64, np.float32))
        self.varies_ = np.ptp(values, axis=0) > 0
        self.varies_[0] |= not self.varies_.any()
        return self

    def _get_support_mask(self) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = self.varies_
        return mask


class BestValues(SelectKBest):  # type: ignore[misc]
    """The columns that tell most by themselves; of few columns, all."""

    def fit(self, X: Any, y: Any = None) -> BestValues:
        """Find the columns of X [n, columns] that tell most of y [n]."""
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.filterwarnings("ignore", message="k=|Features .* are constant", category=UserWarning)
            super().fit(X, y)
        return self


class NormalScores(QuantileTransformer):  # type: ignore[misc]
    """Columns to normal scores by their ranks; of few rows, as many quantiles as there are."""

    def fit(self, X: Any, y: Any = None) -> NormalScores:
        """Find the quantiles of the columns [n, columns]."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="n_quantiles", category=UserWarning)
            super().fit(X, y)
        return self


def _majority(making: Making) -> Any:
    from sklearn.dummy import DummyClassifier, DummyRegressor

    return DummyClassifier(strategy="prior") if making.kind == "classification" else DummyRegressor()


def _boost(making: Making, *, rounds: int = 150, rate: float = 0.1, share: float = 1.0) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    kind = HistGradientBoostingClassifier if making.kind == "classification" else HistGradientBoostingRegressor
    return kind(
        learning_rate=rate,
        max_iter=rounds,
        max_leaf_nodes=15,
        min_samples_leaf=5,
        l2_regularization=1.0,
        max_features=share,
        early_stopping=False,  # it would split by item, not by member
        random_state=making.seed,
    )


def _boost_on_setups(making: Making) -> Any:
    return _known(_boost(making))


def _boost_on_statistics(making: Making) -> Any:
    # Statistics of a tensor say much the same: trees that each see some of them differ more, and sum up better.
    return _known(_boost(making, rounds=300, rate=0.06, share=0.25))


def _linear(making: Making) -> Any:
    from sklearn.linear_model import LogisticRegression

    if making.kind == "regression":
        return _ranked(GroupedRidge(alphas=np.logspace(-2, 5, 15)))
    return _ranked(LogisticRegression(C=0.3, max_iter=2000))


def _svm(making: Making) -> Any:
    from sklearn.svm import LinearSVC, LinearSVR

    if making.kind == "regression":
        svm = LinearSVR(C=0.3, epsilon=0.0, max_iter=3000, dual="auto", random_state=making.seed)
        return _ranked(_scaled_target(svm))
    return _ranked(LinearSVC(C=0.03, max_iter=3000, dual="auto", random_state=making.seed))


def _mlp(making: Making) -> Any:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    options: dict[str, Any] = {
        "hidden_layer_sizes": (128, 64),
        "alpha": 1e-2,
        "max_iter": 120,
        "random_state": making.seed,
    }
    if making.kind == "regression":
        return _ranked(_scaled_target(MLPRegressor(**options)))
    return _ranked(MLPClassifier(**options))


def _linear_on_values(making: Making) -> Any:
    from sklearn.linear_model import LogisticRegression

    if making.kind == "regression":
        return _rooted(GroupedRidge(alphas=np.logspace(0, 8, 17)))
    return _rooted(LogisticRegression(C=1e-3, max_iter=1000))


def _boost_on_values(making: Making) -> Any:
    from sklearn.feature_selection import f_classif, f_regression
    from sklearn.pipeline import make_pipeline

    test = f_classif if making.kind == "classification" else f_regression
    boost = _boost(making, rounds=60, share=_BOOST_SHARE_OF_VALUES)
    return make_pipeline(VaryingColumns(), BestValues(test, k=_BOOSTED_VALUES), boost)


def _known(estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline

    return make_pipeline(KnownColumns(), estimator)


def _ranked(estimator: Any) -> Any:
    """Columns to normal scores, missing ones to the median and a column that says so."""
    from sklearn.impute import SimpleImputer

    return _grouped(
        KnownColumns(),
        SimpleImputer(strategy="median", add_indicator=True),
        NormalScores(n_quantiles=100, output_distribution="normal", random_state=0),
        estimator,
    )


def _rooted(estimator: Any) -> Any:
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    scaled = FunctionTransformer(signed_root), VaryingColumns(), StandardScaler()
    return _grouped(*scaled, RowSpace(), estimator)


def _grouped(*steps: Any) -> GroupedPipeline:
    from sklearn.pipeline import make_pipeline

    return GroupedPipeline(make_pipeline(*steps).steps)


def signed_root(values: NDArray[Any]) -> NDArray[Any]:
    """The square root of the magnitude, with the sign: one outlier among initialisations cannot rule a column."""
    rooted: NDArray[Any] = np.sign(values) * np.sqrt(np.abs(values))
    return rooted


def _scaled_target(estimator: Any) -> Any:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    return TransformedTargetRegressor(regressor=estimator, transformer=StandardScaler())


SPECS = (
    ModelSpec(
        name="majority",
        title="the most frequent class, or the mean: reads nothing",
        reads="nothing",
        make=_majority,
    ),
    ModelSpec(
        name="setup",
        title="gradient boosting on all other properties and the test accuracy: reads no weights",
        reads="setup",
        make=_boost_on_setups,
    ),
    ModelSpec(
        name="statistics-linear",
        title="logistic or ridge regression on statistics of each tensor",
        reads="statistics",
        any_length=True,
        make=_linear,
    ),
    ModelSpec(
        name="statistics-svm",
        title="linear SVM on statistics of each tensor",
        reads="statistics",
        any_length=True,
        make=_svm,
    ),
    ModelSpec(
        name="statistics-boost",
        title="gradient boosting on statistics of each tensor",
        reads="statistics",
        any_length=True,
        make=_boost_on_statistics,
    ),
    ModelSpec(
        name="statistics-mlp",
        title="MLP on statistics of each tensor",
        reads="statistics",
        any_length=True,
        make=_mlp,
    ),
    ModelSpec(
        name="neurons-boost",
        title="gradient boosting on statistics of each tensor and of the neurons between them",
        reads="neurons",
        make=_boost_on_statistics,
    ),
    ModelSpec(
        name="values-linear",
        title="logistic or ridge regression on the weights themselves",
        reads="values",
        make=_linear_on_values,
    ),
    ModelSpec(
        name="values-boost",
        title="gradient boosting on the weights themselves",
        reads="values",
        make=_boost_on_values,
    ),
)
