"""Batches computed on the device are those of ``engine/train/split.py``, index for index."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
import torch

from wse.engine.space import Space
from wse.engine.train import Split
from wse.kernels.inputs.triton_order import epoch_indices
from wse.kernels.packs import Pack


@dataclass
class ImageSet:
    """All that a split reads of an image set."""

    name: str
    train_labels: np.ndarray
    n_classes: int
    test_labels: np.ndarray


def image_set(name, counts):
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.uint8)
    return ImageSet(name, np.random.default_rng(0).permutation(labels), len(counts), labels[:5])


SETS = [("even", [40] * 10), ("uneven", [3, 50, 7, 200, 21]), ("two", [2, 65])]
CASES = [  # image set, share, limit, batch, epoch, batches looked at
    (0, 1.0, None, 16, 1, (0, 1)),
    (1, 1.0, 9, 9, 2**32 - 1, (0,)),
    (0, 0.31, 50, 7, 3, (0, 6)),
    (2, 0.5, None, 2, 9, (0,)),
    (0, 1.0, 129, 129, 2, (0,)),
]


@pytest.fixture(scope="module")
def splits():
    space = Space.load(preset="nws-main", overrides={"dataset": "digits"})
    return [Split.make(image_set(*known), seed=1, settings=space.settings) for known in SETS]


def member_of(case, place):
    space = Space.load(preset="nws-main", overrides={"dataset": "digits"})
    member = space.members(2**64 - 7, [place])[0]
    setup = msgspec.structs.replace(member.setup, train_fraction=case[1])
    return dataclasses.replace(member, setup=setup)


def test_batches_are_the_splits(device, splits):
    members = [member_of(case, 1000 + place) for place, case in enumerate(CASES)]
    offsets = [0, *np.cumsum([case[3] for case in CASES])]
    tables = [np.concatenate(split.training) for split in splits]
    starts = np.cumsum([0] + [len(table) for table in tables])
    C = max(len(split.training) for split in splits)
    orders, classes = np.zeros((len(CASES), 2)), np.ones((len(CASES), C, 3))
    for row, (case, member) in enumerate(zip(CASES, members, strict=True)):
        split = splits[case[0]]
        sizes = np.array([len(indices) for indices in split.training])
        shares = np.maximum(np.round(case[1] * sizes), 1)
        count = split.epoch_size(member, limit=case[2])
        orders[row] = len(sizes), -(-count // len(sizes))
        begins = starts[case[0]] + np.cumsum(sizes) - sizes
        classes[row, : len(sizes)] = np.stack([begins, sizes, shares], axis=1)
    for which in (0, -1):
        addresses = [
            (member.seed - 2**64, member.id, case[4], case[5][which] * case[3])
            for case, member in zip(CASES, members, strict=True)
        ]
        indices = torch.full((offsets[-1] + 3,), -7, dtype=torch.int32, device=device)
        epoch_indices(
            indices,
            Pack.of(offsets, device),
            addresses=torch.tensor(addresses, device=device),
            orders=torch.from_numpy(orders).int().to(device),
            classes=torch.from_numpy(classes).int().to(device),
            table=torch.from_numpy(np.concatenate(tables)).int().to(device),
        )
        got = indices.cpu().numpy()
        assert (got[offsets[-1] :] == -7).all()
        for row, (case, member) in enumerate(zip(CASES, members, strict=True)):
            whole = splits[case[0]].epoch_indices(member, case[4], limit=case[2])
            first = case[5][which] * case[3]
            expected = whole[first : first + case[3]]
            assert len(expected) == case[3], "the case itself"
            np.testing.assert_array_equal(got[offsets[row] : offsets[row + 1]], expected, err_msg=str(row))
