"""Figures of the space of weights: every network a point, near those with like statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...meta.statistics import MOMENTS, PERCENTILES, part_statistics
from ...nets import Layout
from ...zoo import Items, Zoo
from ..figure import Figure
from ..grids import scatter
from ..summary import groups_of

Floats = NDArray[np.float64]

MOST_POINTS = 2000
_PANELS = 6
# What networks are coloured by, if it varies: the properties that shape weights most.
_FIRST = ("dataset", "test_accuracy", "activation", "optimizer", "initialization", "learning_rate", "batch_size")
_KINDS = (
    *(f"weight.{name}" for name in (*MOMENTS, *(f"p{percentile}" for percentile in PERCENTILES))),
    *(
        f"{tensor}.{name}"
        for tensor in ("bias", "bn.beta", "bn.gamma", "bn.moving_mean", "bn.moving_variance")
        for name in ("mean", "variance")
    ),
)
_COMPONENTS = 30
_PERPLEXITY = 30


def embedding_figures(zoo: Zoo) -> list[Figure]:
    """PCA and t-SNE of statistics of the last snapshots; none where there are fewer than five networks.

    Raises:
        WseError: a shard is missing or damaged.
    """
    items = zoo.items()
    if len(items) > MOST_POINTS:
        items = items.only(np.linspace(0, len(items) - 1, MOST_POINTS).round().astype(np.int64))
    if len(items) < 5:
        return []
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    ranks = _ranks(features(items))
    count = min(_COMPONENTS, len(items) - 1, ranks.shape[1])
    pca = PCA(n_components=count, svd_solver="full").fit(ranks)
    components = pca.transform(ranks)
    perplexity = min(_PERPLEXITY, (len(items) - 1) / 3)
    tsne = TSNE(init="pca", random_state=0, perplexity=perplexity)
    first, second = pca.explained_variance_ratio_[:2]
    which = f"{len(items):,} networks" if len(items) == len(zoo) else f"{len(items):,} of {len(zoo):,} networks"
    what = (
        f"The last snapshots of {which} ({_which_layers(items)}): mean, variance, skewness, kurtosis and "
        "percentiles of weights, mean and variance of everything else. Each statistic is replaced by its rank, "
        "so that a few extreme networks do not squeeze the others together."
    )
    share = f"The two axes hold {100 * (first + second):.0f} % of the variance."
    caution = "Only neighbourhoods mean something here: distances between groups and their sizes do not."
    return [
        _figure("weights-pca", "The space of weights: PCA", f"{what} {share}", components[:, :2], items),
        _figure("weights-tsne", "The space of weights: t-SNE", caution, tsne.fit_transform(components), items),
    ]


def _which_layers(items: Items) -> str:
    return "layer by layer" if len(items.architectures) == 1 else "first and last layers of each kind"


def features(items: Items) -> Floats:
    """Statistics of every item's weights.

    Items of one architecture are described layer by layer. Of several, only what all have can be compared:
    the first and the last convolution and fully connected layer; where an architecture has none, 0.

    Returns:
        [N, features].
    """
    found = part_statistics(items, statistics=True, matrices=False)
    place = {name: index for index, name in enumerate(found.names)}
    values = np.pad(np.nan_to_num(found.values), ((0, 0), (0, 1)))  # the last column is of what is not there
    layouts = [items.zoo.layout(name) for name in items.architectures]
    described = [layouts[0].layers] if len(layouts) == 1 else [_ends(layout) for layout in layouts]
    columns = np.array(
        [[place.get(f"{layer}.{kind}", -1) for layer in layers for kind in _KINDS] for layers in described]
    )
    table: Floats = values[np.arange(len(items))[:, None], columns[items.architecture]]
    return table


def _ends(layout: Layout) -> tuple[str | None, ...]:
    """First and last layer of each kind."""
    ends: list[str | None] = []
    for kind in ("conv", "fc"):
        layers = [layer for layer in layout.layers if layer.startswith(kind)]
        ends += [layers[0], layers[-1]] if layers else [None, None]
    return tuple(ends)


def _ranks(table: Floats) -> Floats:
    """Each column by rank, ties alike, with mean 0 and variance 1; columns that never vary are left out."""
    from scipy.stats import rankdata

    ranks: Floats = np.asarray(rankdata(table, axis=0), np.float64)
    spread = ranks.std(axis=0)
    varying = ranks[:, spread > 0]
    if not varying.shape[1]:
        return np.zeros((len(table), 2))
    scaled: Floats = (varying - varying.mean(axis=0)) / spread[spread > 0]
    return scaled if scaled.shape[1] > 1 else np.repeat(scaled, 2, axis=1)


def _figure(name: str, title: str, caption: str, points: NDArray[Any], items: Items) -> Figure:
    plane = np.asarray(points, np.float64)
    chosen = _colours(items)
    panels = []
    for column, groups in chosen.items():
        styled = list(zip(_styles(column, items, [name for name, _ in groups]), groups, strict=True))
        panels.append(
            scatter(
                plane,
                [(style, value, here) for style, (value, here) in styled],
                title=column,
                description=f"{len(plane):,} networks coloured by {column}: {', '.join(v for v, _ in groups)}.",
            )
        )
    values = [items.column(column).to_pylist() for column in chosen]
    members = items.members.tolist()
    rows = [
        (member, round(x, 4), round(y, 4), *others)
        for member, (x, y), *others in zip(members, plane.tolist(), *values, strict=True)
    ]
    return Figure(
        name=name,
        title=title,
        caption=caption,
        panels=tuple(panels),
        header=("member", "x", "y", *chosen),
        rows=tuple(rows),
    )


def _colours(items: Items) -> dict[str, list[tuple[str, NDArray[np.bool_]]]]:
    """Columns to colour by: those of ``_FIRST`` that vary, then others, with their groups."""
    others = [
        name.removeprefix("config.") for name in items.zoo.members.column_names if name.startswith("config.")
    ]
    chosen: dict[str, list[tuple[str, NDArray[np.bool_]]]] = {}
    for name in dict.fromkeys((*_FIRST, *others)):
        if name not in (*others, "test_accuracy") or len(chosen) == _PANELS:
            continue
        groups = list(groups_of(items.column(name)))
        if len(groups) > 1:
            chosen[name] = groups
    return chosen


def _styles(column: str, items: Items, groups: list[str]) -> list[str]:
    """Colours of a scale for what has an order, colours of their own for names, grey for what is not set."""
    known = [value for value in items.column(column).to_pylist() if value is not None]
    ordered = not isinstance(known[0], (str, bool))
    last = max(len(set(groups) - {"-"}) - 1, 1)
    colours = [f"s{round(place * 6 / last)}" if ordered else f"c{place % 7}" for place in range(len(groups))]
    return ["c7" if group == "-" else colour for group, colour in zip(groups, colours, strict=True)]
