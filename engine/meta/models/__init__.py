"""Models that read a property from weights, and baselines that do not."""

from . import shallow
from .spec import Making, ModelSpec, Reads

MODELS: dict[str, ModelSpec] = {spec.name: spec for spec in shallow.SPECS}

__all__ = ["MODELS", "Making", "ModelSpec", "Reads"]
