"""The figures of the page, by what they show: the population, a study, the space of weights."""

from .embedding import embedding_figures
from .population import population_figures
from .study import study_figures

__all__ = ["embedding_figures", "population_figures", "study_figures"]
