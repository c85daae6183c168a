"""Models that read a property from weights, and baselines that do not."""

from .fitting import DeepClassifier, DeepRegressor
from .source import Source
from .spec import Making, ModelSpec, Reads

__all__ = ["DeepClassifier", "DeepRegressor", "Making", "ModelSpec", "Reads", "Source"]
