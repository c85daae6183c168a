"""The constants of batch normalisation, which are those of the study."""

from __future__ import annotations

DECAY = 0.9
EPSILON = 1e-5
