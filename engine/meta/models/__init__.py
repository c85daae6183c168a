"""Models that read a property from weights, and baselines that do not."""

from . import dmc, light_cnn, transformer
from .fitting import DeepClassifier, DeepRegressor
from .source import Source
from .spec import Making, ModelSpec, Reads

MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in (*dmc.SPECS, *light_cnn.SPECS, *transformer.SPECS)}

__all__ = ["MODELS", "DeepClassifier", "DeepRegressor", "Making", "ModelSpec", "Reads", "Source"]
