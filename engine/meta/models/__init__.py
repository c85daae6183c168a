"""Models that read a property from weights, and baselines that do not."""

from .spec import Making, ModelSpec, Reads

__all__ = ["Making", "ModelSpec", "Reads"]
