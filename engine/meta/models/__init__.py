"""Models that read a property from weights, and baselines that do not."""

from . import dmc, equivariant, graph, light_cnn, probing, shallow, transformer
from .fitting import DeepClassifier, DeepRegressor
from .source import Source
from .spec import Making, ModelSpec, Reads

_FAMILIES = (shallow, light_cnn, dmc, transformer, equivariant, graph, probing)
MODELS: dict[str, ModelSpec] = {spec.name: spec for family in _FAMILIES for spec in family.SPECS}

__all__ = ["MODELS", "DeepClassifier", "DeepRegressor", "Making", "ModelSpec", "Reads", "Source"]
