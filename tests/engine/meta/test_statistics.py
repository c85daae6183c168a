from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from wse.engine.errors import UsageError
from wse.engine.meta.statistics import (
    MOMENTS,
    OF_MATRICES,
    OF_VALUES,
    PERCENTILES,
    matrix_statistics,
    part_statistics,
    value_statistics,
)


@pytest.mark.parametrize("count", [2, 7, 1001])
def test_values_against_scipy(count: int) -> None:
    values = np.random.default_rng(count).gamma(2.0, 3.0, (5, count)).astype(np.float32)
    found = dict(zip(OF_VALUES, value_statistics(values).T, strict=True))
    exact = values.astype(np.float64)
    expected = {
        "mean": exact.mean(axis=1),
        "variance": exact.var(axis=1),
        "skewness": stats.skew(exact, axis=1),
        "kurtosis": stats.kurtosis(exact, axis=1),
        "mean_abs": np.abs(exact).mean(axis=1),
        "norm": np.linalg.norm(exact, axis=1),
    }
    for percentile in PERCENTILES:
        expected[f"p{percentile}"] = np.percentile(exact, percentile, axis=1, method="nearest")
    assert found.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-9, err_msg=name)


def test_equal_values_have_no_shape() -> None:
    found = dict(zip(OF_VALUES, value_statistics(np.full((1, 9), 0.1, np.float32))[0], strict=True))
    assert [found[name] for name in MOMENTS[1:]] == [0, 0, 0]
    assert value_statistics(np.full((1, 1), 3.0, np.float32))[0, 0] == 3


@pytest.mark.parametrize(("out", "inputs"), [(3, 8), (8, 3), (1, 1)])
def test_matrices_against_numpy(out: int, inputs: int) -> None:
    matrices = np.random.default_rng(1).standard_normal((4, out, inputs)).astype(np.float32)
    found = dict(zip(OF_MATRICES, matrix_statistics(matrices).T, strict=True))
    exact = matrices.astype(np.float64)
    singular = np.array([np.linalg.svd(matrix, compute_uv=False) for matrix in exact])
    np.testing.assert_allclose(found["spectral_norm"], singular[:, 0], rtol=1e-9)
    np.testing.assert_allclose(found["stable_rank"], (singular**2).sum(axis=1) / singular[:, 0] ** 2, rtol=1e-9)
    for part in (25, 50, 75):
        share = np.percentile(singular, part, axis=1) / singular[:, 0]
        np.testing.assert_allclose(found[f"singular_p{part}"], share, rtol=1e-9)
    norms = np.linalg.norm(exact, axis=2)
    for part in (0, 25, 75, 100):
        share = np.percentile(norms, part, axis=1) / np.median(norms, axis=1)
        np.testing.assert_allclose(found[f"unit_norm_p{part}"], share, rtol=1e-9)
    pairs = [(i, j) for i in range(out) for j in range(out) if i != j]
    cosines = [
        np.mean([abs(m[i] @ m[j]) / (n[i] * n[j]) for i, j in pairs]) if pairs else 0
        for m, n in zip(exact, norms, strict=True)
    ]
    np.testing.assert_allclose(found["unit_cosine"], cosines, rtol=1e-9)
    assert not found["dead_units"].any()


def test_dead_units_and_zero_matrices() -> None:
    matrices = np.ones((2, 4, 3), np.float32)
    matrices[0, 1] = 0.001
    matrices[1] = 0
    assert matrix_statistics(matrices)[:, 1:3].tolist() == [[pytest.approx(1, rel=1e-6), 0.25], [0, 1]]
    assert not matrix_statistics(matrices)[1, 3:].any()


def test_tensors_of_a_part(make_zoo) -> None:
    zoo = make_zoo(models=6)
    table = part_statistics(zoo.items(), "conv1")
    tensors = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in table.names))
    assert tensors == ["conv1.weight", "conv1.bias", "conv1.bn.beta", "conv1.bn.gamma"]
    assert part_statistics(zoo.items(), "conv1", statistics=True).values.shape[1] > table.values.shape[1]
    weight = zoo[4].state_dict(-1)["conv1.weight"].numpy().astype(np.float64)
    row = dict(zip(table.names, table.values[4], strict=True))
    assert row["conv1.weight.mean"] == pytest.approx(weight.mean())
    assert row["conv1.weight.spectral_norm"] == pytest.approx(np.linalg.norm(weight.reshape(4, -1), 2))
    gamma = zoo[4].state_dict(-1)["conv1.bn.gamma"].numpy()
    assert row["conv1.bn.gamma.p100"] == gamma.max()
    np.testing.assert_array_equal(part_statistics(zoo.items(), "all").within("conv1"), table.values)


def test_architectures_share_the_columns_they_have(make_zoo) -> None:
    zoo = make_zoo(models=8, architectures=("small", "wide"))
    table = part_statistics(zoo.items(snapshots="all"), "conv2.weight")
    assert np.isfinite(table.values).all()
    for index in (0, 5, 23):
        weights = zoo[index // 3].state_dict(index % 3)["conv2.weight"].numpy()
        assert table.values[index, 0] == pytest.approx(weights.astype(np.float64).mean())


def test_nothing_but_moving_averages(make_zoo) -> None:
    items = make_zoo(models=3).items()
    with pytest.raises(UsageError, match="holds moving averages only"):
        part_statistics(items, "conv1.bn.moving_mean")
    assert part_statistics(items, "conv1.bn.moving_mean", statistics=True).values.shape == (3, len(OF_VALUES))
