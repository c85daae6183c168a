from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from wse.engine.errors import UsageError, WseError
from wse.engine.nets import Layout
from wse.engine.zoo import Zoo, fit_positions
from wse.engine.zoo.slices import SliceDataset

from ...zoos import flip_bit
from .conftest import LAYOUTS, Maker, member_result, name_other_members

TRAINED = [0, 1, 2, 3, 6, 7]
NORM = [0, 1, 3, 6, 7]


def compact(layout: Layout, part: str, *, statistics: bool) -> NDArray[np.int64]:
    """Where the values of a part stand in the flat vector."""
    start, stop = layout.part(part)
    keep = np.ones(layout.size, bool)
    for spec in layout.tensors.values():
        keep[spec.offset : spec.stop] = statistics or not spec.is_statistic
    return np.flatnonzero(keep[start:stop]) + start


@pytest.mark.parametrize(
    ("part", "length"), [("all", 20), ("fc", 8), ("conv1.weight", 8), ("conv", 10), ("fc1.bias", 1)]
)
@pytest.mark.parametrize("statistics", [False, True], ids=["without", "with"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_slices_are_consecutive_values_of_their_part(
    tmp_path: Path, dtype: str, statistics: bool, part: str, length: int
) -> None:
    zoo = Maker().having(dtype=dtype).make(tmp_path / "zoo")
    dataset = zoo.slices(part, length, snapshots="all", statistics=statistics)
    assert len(dataset) == 19
    for epoch in range(30):
        dataset.set_epoch(epoch)
        starts = dataset.starts(np.arange(len(dataset)))
        for index, start in enumerate(starts):
            member, snapshot = int(dataset.members[index]), dataset.snapshots[index]
            places = compact(LAYOUTS[zoo[member].architecture], part, statistics=statistics)
            (place,) = np.flatnonzero(places == start)
            assert place <= len(places) - length
            if epoch < 2:
                values, target = dataset[index]
                assert target == member
                expected = zoo[member].weights()[snapshot, places[place : place + length]]
                np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_even_slices(zoo: Zoo, count: int) -> None:
    dataset = zoo.slices("all", 20, target="learning_rate", members=TRAINED)
    values, targets = dataset.evenly([5, 1], count)
    assert values.shape == (2, count, 20)
    assert torch.equal(targets, torch.from_numpy(dataset.targets[[5, 1]]))
    starts = dataset.even_starts(np.array([5, 1]), count)
    for row, index in enumerate((5, 1)):
        member = int(dataset.members[index])
        places = compact(LAYOUTS[zoo[member].architecture], "all", statistics=False)
        at = np.searchsorted(places, starts[row])
        last = len(places) - 20
        steps = np.linspace(0, last, count) if count > 1 else np.array([last / 2])
        np.testing.assert_array_equal(at, np.floor(steps + 1e-9))
        for column, place in enumerate(at):
            expected = zoo[member].weights()[-1, places[place : place + 20]]
            np.testing.assert_array_equal(values[row, column], expected)


def test_too_few_even_slices(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match=r"`count` \(=0\) must be at least 1"):
        zoo.slices("all", 20).evenly([0], 0)


@pytest.mark.parametrize("statistics", [False, True], ids=["without", "with"])
def test_short_parts_are_padded_if_asked(zoo: Zoo, statistics: bool) -> None:
    dataset = zoo.slices("conv1", 50, pad=True, statistics=statistics, normalize="slice", members=TRAINED)
    values, _ = dataset.batch(range(len(dataset)))
    for member, row in zip(TRAINED, values.numpy(), strict=True):
        places = compact(LAYOUTS[zoo[member].architecture], "conv1", statistics=statistics)
        expected = standardised(zoo[member].weights()[-1, places])
        np.testing.assert_allclose(row[: len(places)], expected, atol=1e-5)
        assert (row[len(places) :] == 0).all()
    assert zoo.slices("conv1", pad=True, statistics=statistics).length == (42 if statistics else 36)


def standardised(values: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    return (wide - wide.mean()) / wide.std()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_normalised_slice_by_slice(tmp_path: Path, dtype: str) -> None:
    zoo = Maker().having(dtype=dtype).make(tmp_path / "zoo")
    plain, made = (zoo.slices("all", 20, snapshots="all", normalize=how) for how in ("none", "slice"))
    for row, expected in zip(made.batch(range(19))[0], plain.batch(range(19))[0], strict=True):
        np.testing.assert_allclose(row, standardised(expected.numpy()), atol=1e-5)


def test_normalised_layer_by_layer(zoo: Zoo) -> None:
    dataset = zoo.slices("all", 33, normalize="layer", snapshots="all", members=NORM)
    for part in (dataset, dataset.only(np.arange(len(dataset)) % 2 == 1), *dataset.split((0.5, 0.5))):
        values, _ = part.batch(range(len(part)))
        starts = part.starts(np.arange(len(part)))
        for row, start, member, snapshot in zip(values, starts, part.members, part.snapshots, strict=True):
            weights, layout = zoo[int(member)].weights()[snapshot], LAYOUTS["norm"]
            expected = np.full(layout.size, np.nan)
            for layer in layout.layers:
                at = compact(layout, layer, statistics=False)
                expected[at] = standardised(weights[at])
            places = compact(layout, "all", statistics=False)
            first = np.searchsorted(places, start)
            np.testing.assert_allclose(row, expected[places[first : first + 33]], atol=1e-5)


def test_normalised_by_position(zoo: Zoo) -> None:
    train = zoo.items(snapshots="all", members=[0, 1, 2, 3])
    test = zoo.items(snapshots="all", members=[6, 7])
    positions = fit_positions(train, "all")
    dataset = SliceDataset(test, "all", 20, normalize=positions)
    values, _ = dataset.batch(range(len(dataset)))
    for index, start in enumerate(dataset.starts(np.arange(len(dataset)))):
        layout = test.layout(index)
        name = layout.architecture.name
        at = compact(layout, "all", statistics=False)
        seen = [train.weights(other)[at] for other in range(len(train)) if train.layout(other) is layout]
        wide = np.array(seen, np.float64)
        np.testing.assert_allclose(positions.mean[name], wide.mean(0), atol=1e-6)
        np.testing.assert_allclose(positions.std[name], wide.std(0), atol=1e-6)
        first = np.searchsorted(at, start)
        expected = ((test.weights(index)[at] - wide.mean(0)) / wide.std(0))[first : first + 20]
        np.testing.assert_allclose(values[index], expected, rtol=1e-4, atol=1e-4)


def test_what_does_not_vary_becomes_zero(zoo: Zoo) -> None:
    items = zoo.items(members=[0])
    for how, length in (("slice", 1), (fit_positions(items, "fc1.bias"), 2)):
        assert SliceDataset(items, "fc1.bias", length, normalize=how).batch([0])[0].tolist() == [[0.0] * length]


def test_normalising_that_does_not_fit(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match=r"`normalize` \(='zoo'\) must be none, slice, layer or fitted positions"):
        zoo.slices("fc", 3, normalize="zoo")
    positions = fit_positions(zoo.items(members=NORM), "all")
    with pytest.raises(UsageError, match="positions of all cannot normalise slices of fc: fit them"):
        zoo.slices("fc", 3, normalize=positions)
    with pytest.raises(UsageError, match="positions of all cannot normalise slices of all with moving averages"):
        zoo.slices("all", 3, normalize=positions, statistics=True)
    with pytest.raises(UsageError, match="positions were not fitted to architecture plain"):
        zoo.slices("all", 3, normalize=positions)
    with pytest.raises(UsageError, match="has nothing but moving averages"):
        zoo.slices("conv1.bn.moving_mean", 3, members=NORM)
    assert zoo.slices("conv1.bn.moving_mean", 3, members=NORM, statistics=True).length == 3


def test_every_place_is_drawn_about_equally_often(zoo: Zoo) -> None:
    dataset = zoo.slices("conv1.weight", 8, members=[2])  # 8 values: 1 place
    assert set(dataset.starts(np.zeros(1, int))) == {0}
    dataset = zoo.slices("conv1.weight", 20, members=[0])  # 27 values: 8 places
    counts = np.zeros(8, int)
    for epoch in range(4000):
        dataset.set_epoch(epoch)
        counts[dataset.starts(np.zeros(1, int))[0]] += 1
    chi_square = ((counts - 500) ** 2 / 500).sum()
    assert chi_square < 24.3  # exceeded by chance once in 1,000 sets of places, and these are always the same


def test_places_depend_on_seed_epoch_member_and_snapshot_only(zoo: Zoo) -> None:
    def starts(dataset) -> list[int]:
        return dataset.starts(np.arange(len(dataset))).tolist()

    dataset = zoo.slices("all", 5, snapshots="all", seed=1)
    assert starts(dataset) == starts(zoo.slices("all", 5, snapshots="all", seed=1))
    assert starts(dataset) != starts(zoo.slices("all", 5, snapshots="all", seed=2))
    fewer = zoo.slices("all", 5, snapshots="all", seed=1, members=[6, 3])
    assert starts(fewer) == [s for s, m in zip(starts(dataset), dataset.members, strict=True) if m in (3, 6)]
    before = starts(dataset)
    dataset.set_epoch(1)
    assert starts(dataset) != before
    dataset.set_epoch(0)
    assert starts(dataset) == before


def test_negative_seeds_are_seeds(zoo: Zoo) -> None:
    assert len(zoo.slices("all", 5, seed=-1)[0][0]) == 5


def test_whole_part(zoo: Zoo) -> None:
    dataset = zoo.slices("conv1", members=NORM, statistics=True)
    values, targets = dataset.batch([0, 1, 2, 3, 4])
    assert targets.tolist() == NORM
    for member, row in zip(NORM, values, strict=True):
        start, stop = LAYOUTS["norm"].part("conv1")
        np.testing.assert_array_equal(row, zoo[member].weights()[-1, start:stop])
    assert zoo.slices("conv1", members=NORM).length == 36
    with pytest.raises(UsageError, match=r"part conv1 is not of one size \(10, 36 values\): give a length"):
        zoo.slices("conv1")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("conv1", 11), "part conv1 of architecture plain has 10 values, fewer than the length 11"),
        (("conv1", 0), r"`length` \(=0\) must be at least 1"),
        (("conv9", 3), "no part 'conv9'"),
        (("conv1.bn", 1), "no part 'conv1.bn' in architecture plain"),
    ],
)
def test_parts_that_do_not_fit(zoo: Zoo, arguments: tuple[str, int], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        zoo.slices(*arguments)


def test_only_chosen_members_must_have_the_part(zoo: Zoo) -> None:
    assert len(zoo.slices("conv1.bn", 1, members=NORM)) == 5


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        (None, [(3, 2), (4, 0)]),
        ("all", [(3, 0), (3, 1), (3, 2), (4, 0)]),
        ([0], [(3, 0), (4, 0)]),
        ([1], [(3, 1)]),
        ([-1, 0], [(3, 0), (3, 2), (4, 0)]),
        ([2, -1], [(3, 2), (4, 0)]),
    ],
    ids=str,
)
def test_snapshots(zoo: Zoo, snapshots, expected: list[tuple[int, int]]) -> None:
    dataset = zoo.slices("fc", 3, members=[3, 4, 5], snapshots=snapshots)
    assert list(zip(dataset.members, dataset.snapshots, strict=True)) == expected


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"members": [True] * 8}, r"`members` must be ids, as a list \(those of a mask: zoo.ids\[mask\]\)"),
        ({"members": np.ones(8, bool)}, "`members` must be ids"),
        ({"members": [0.5]}, "`members` must be ids"),
        ({"members": 3}, "`members` must be ids"),
        ({"snapshots": -1}, r"`snapshots` \(=-1\) must be None, 'all' or a list"),
        ({"snapshots": [True, False]}, "must be None, 'all' or a list"),
        ({"resident": "disk"}, r"`resident` \(='disk'\) must be True, False or a device"),
    ],
    ids=str,
)
def test_what_is_no_choice(zoo: Zoo, chosen, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        zoo.slices("fc", 3, **chosen)


def test_a_length_that_is_no_whole_number(zoo: Zoo) -> None:
    with pytest.raises(TypeError):
        zoo.slices("fc", 2.5)


def test_what_is_shown_of_it(zoo: Zoo) -> None:
    shown = repr(zoo.slices("fc", 3, members=[3, 4, 5], snapshots="all"))
    assert shown.startswith("SliceDataset(4 slices of 3 values of fc, Items(4 snapshots of 2 members of Zoo('")
    assert "8 members of 2 architectures" in shown


def test_nothing_left(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match="no slice is left"):
        zoo.slices("fc", 3, members=[5])
    with pytest.raises(UsageError, match="no slice is left"):
        zoo.slices("fc", 3, snapshots=[7])
    with pytest.raises(UsageError, match="must be None, 'all' or a list"):
        zoo.slices("fc", 3, snapshots="last")
    with pytest.raises(UsageError, match="has no member 8"):
        zoo.slices("fc", 3, members=[1, 8])


def test_class_targets(zoo: Zoo) -> None:
    dataset = zoo.slices("fc", 3, target="optimizer", members=TRAINED)
    assert dataset.classes == ("adam", "rmsprop", "sgd")
    found = [dataset.classes[int(dataset[index][1])] for index in range(len(dataset))]
    assert found == [member_result(member).config["optimizer"] for member in TRAINED]
    truth = zoo.slices("fc", 3, target="augmented", members=TRAINED)
    assert truth.classes == (False, True)
    assert truth.targets.tolist() == [1, 0, 1, 0, 1, 0]
    assert zoo.slices("fc", 3, target="status").classes == ("dead", "diverged", "ok")


def test_number_targets(zoo: Zoo) -> None:
    dataset = zoo.slices("fc", 3, target="learning_rate", members=TRAINED)
    assert dataset.classes is None
    assert dataset.targets.dtype == np.float32
    np.testing.assert_allclose(dataset.targets, [0.1 / (member + 1) for member in TRAINED], rtol=1e-6)
    assert zoo.slices("fc", 3, target="predicted_classes", members=[1]).targets.tolist() == [2.0]


def test_outcomes_are_those_of_the_snapshot(zoo: Zoo) -> None:
    dataset = zoo.slices("fc", 3, target="test_accuracy", snapshots=[0, 2], members=[6, 7])
    expected = [member_result(member).snapshots[index].test_accuracy for member in (6, 7) for index in (0, 2)]
    np.testing.assert_allclose(dataset.targets, expected, rtol=1e-6)
    gap = zoo.slices("fc", 3, target="generalization_gap", members=[7])
    np.testing.assert_allclose(gap.targets, zoo.members["generalization_gap"][7].as_py(), rtol=1e-6)
    assert zoo.slices("fc", 3, target="epoch", snapshots=[1], members=[7]).targets.tolist() == [2.0]


def test_targets_that_do_not_exist(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match="momentum is not set for 3 slices"):
        zoo.slices("fc", 3, target="momentum", snapshots="all", members=[0, 4, 1, 5])
    with pytest.raises(UsageError, match=r"no target 'weather' in .*: use one of activation, "):
        zoo.slices("fc", 3, target="weather")


def test_split_is_by_member(zoo: Zoo) -> None:
    dataset = zoo.slices("fc", 3, target="optimizer", snapshots="all")
    parts = dataset.split((0.5, 0.25, 0.25))
    owners = [set(part.members.tolist()) for part in parts]
    assert sum(map(len, owners)) == len(set.union(*owners)) == 7
    assert set.union(*owners) == set(dataset.members.tolist())
    assert sum(map(len, parts)) == len(dataset)
    for part in parts:
        assert part.classes == dataset.classes
        rows = {(m, s): i for i, (m, s) in enumerate(zip(dataset.members, dataset.snapshots, strict=True))}
        for index, key in enumerate(zip(part.members, part.snapshots, strict=True)):
            for found, expected in zip(part[index], dataset[rows[key]], strict=True):
                assert torch.equal(found, expected)
    again = dataset.split((0.5, 0.25, 0.25))
    assert [set(part.members.tolist()) for part in again] == owners
    others = [dataset.split((0.5, 0.25, 0.25), seed=seed)[0].members.tolist() for seed in range(1, 6)]
    assert any(set(other) != owners[0] for other in others)


@pytest.mark.parametrize("fractions", [(0.5, 0.6), (1.0, 0.0), (), (1.5, -0.5)], ids=str)
def test_fractions_that_are_none(zoo: Zoo, fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="must be positive and sum to 1"):
        zoo.slices("fc", 3).split(fractions)


def test_too_few_members_to_split(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match="2 members are too few"):
        zoo.slices("fc", 3, members=[0, 1]).split()


WAYS = ["none", "slice", "layer", "positions"]


def of_way(zoo: Zoo, way: str, **options) -> SliceDataset:
    how = fit_positions(zoo.items(), "all") if way == "positions" else way
    return zoo.slices("all", 30, snapshots="all", normalize=how, **options)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_resident_slices_are_those_of_the_files(tmp_path: Path, dtype: str, way: str) -> None:
    zoo = Maker().having(dtype=dtype).make(tmp_path / "zoo")
    files, resident = of_way(zoo, way, target="status"), of_way(zoo, way, target="status", resident=True)
    fewer = np.arange(len(files)) % 3 == 0
    pairs = [(files, resident), (files.only(fewer), resident.only(fewer))]
    orders = [np.random.default_rng(0).permutation(len(left)) for left, _ in pairs]
    expected = [
        (*left.batch(order), left.evenly(order, 3)[0]) for (left, _), order in zip(pairs, orders, strict=True)
    ]
    for shard in (zoo.folder / "shards").iterdir():
        shard.write_bytes(b"")  # all of it has been read
    for (_, right), order, values in zip(pairs, orders, expected, strict=True):
        for found, wanted in zip((*right.batch(order), right.evenly(order, 3)[0]), values, strict=True):
            assert torch.equal(found, wanted)


@pytest.mark.parametrize("way", WAYS)
def test_slices_made_by_triton_are_the_same(zoo: Zoo, way: str) -> None:
    dataset = of_way(zoo, way, resident="cuda" if torch.cuda.is_available() else True)
    chosen = np.array([3, 0, 18])
    places = dataset._drawn(chosen)
    counts = dataset._places.counts(dataset.items.architecture[chosen])
    found = dataset._source.gather_on_device(chosen, places, counts)
    expected, _ = of_way(zoo, way).batch(chosen)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=2e-6)


def test_weights_that_do_not_fit_into_memory(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wse.engine.zoo.sources.free_bytes", lambda device: 100)
    with pytest.raises(UsageError, match=r"the weights need 0\.0 GB of memory and 0\.0 GB are free: choose fewer"):
        zoo.slices("all", 20, resident=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_to_keep_weights_on(zoo: Zoo) -> None:
    with pytest.raises(UsageError, match=r"`resident` \(='cuda'\) needs an NVIDIA GPU"):
        zoo.slices("all", 20, resident="cuda")


def test_a_zoo_larger_than_memory_is_read_ahead(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = zoo.slices("all", 20, snapshots="all").batch(range(19))
    monkeypatch.setattr("wse.engine.zoo.sources.physical_bytes", lambda: 100)
    dataset = zoo.slices("all", 20, snapshots="all")
    asked = []
    monkeypatch.setattr("wse.engine.zoo.sources.expect", lambda ranges: asked.extend(ranges))
    dataset.batch(range(19))
    del asked[:]
    assert torch.equal(dataset.batch([4, 18])[0], expected[[4, 18]])
    for (path, start, size), index in zip(asked, (4, 18), strict=True):
        assert path == zoo.folder / "shards" / zoo[int(dataset.members[index])].record["shard"]
        values = np.frombuffer(path.read_bytes()[start : start + size], np.float32)
        np.testing.assert_array_equal(values[:1], expected[index][:1])
        np.testing.assert_array_equal(values[-1:], expected[index][-1:])


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader(zoo: Zoo, workers: int, resident: bool) -> None:
    dataset = zoo.slices("all", 20, target="learning_rate", snapshots="all", normalize="layer", resident=resident)
    dataset[0]  # a shard is open before the workers start
    loader = DataLoader(dataset, batch_size=4, num_workers=workers)
    values, targets = (torch.cat(column) for column in zip(*loader, strict=True))
    expected = dataset.batch(range(len(dataset)))
    assert torch.equal(values, expected[0])
    assert torch.equal(targets, expected[1])
    assert (values.dtype, targets.dtype) == (torch.float32, torch.float32)


@pytest.mark.parametrize("resident", [False, True])
def test_spawned_workers(zoo: Zoo, resident: bool) -> None:
    dataset = zoo.slices("all", 20, resident=resident)
    dataset[0]  # where a file lies in this process is nothing to another one
    loader = DataLoader(dataset, batch_size=4, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(torch.cat([values for values, _ in loader]), dataset.batch(range(len(dataset)))[0])


def test_index_out_of_range(zoo: Zoo) -> None:
    dataset = zoo.slices("fc", 3)
    assert torch.equal(dataset[-1][0], dataset[len(dataset) - 1][0])
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_damage_is_refused(zoo: Zoo) -> None:
    shards = zoo.folder / "shards"
    flip_bit(shards / "plain-0000.safetensors", (shards / "plain-0000.safetensors").stat().st_size // 2)
    with pytest.raises(WseError, match=r"plain-0000\.safetensors is damaged"):
        zoo.slices("fc", 3, snapshots="all").batch(range(19))
    name_other_members(shards / "norm-0002.safetensors")
    with pytest.raises(WseError, match="lacks snapshot 2 of member 6"):
        Zoo.open(zoo.folder).slices("fc", 3, members=[6])[0]
