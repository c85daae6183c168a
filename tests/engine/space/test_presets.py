"""The presets against the studies they reproduce, distribution by distribution."""

from __future__ import annotations

import copy
import pickle

import pytest

from wse.engine.nets import Layout
from wse.engine.space import PRESETS, PROPERTIES, Choice, Fixed, Space, Uniform, arrow_types

NWS_MAIN = {
    "dataset": Choice(("mnist", "cifar10", "svhn", "stl10", "fashion-mnist")),
    "learning_rate": Uniform(0.0002, 0.005),
    "learning_rate_schedule": Fixed("constant"),
    "batch_size": Choice((32, 64, 128, 256)),
    "augmentation": Choice((False, True)),
    "optimizer": Choice(("adam", "rmsprop", "momentum")),
    "activation": Choice(("relu", "elu", "sigmoid", "tanh")),
    "initialization": Choice(("constant", "normal", "glorot_uniform", "glorot_normal")),
    "init_std": Fixed(1.0),
    "filter_size": Choice((3, 5, 7)),
    "depth_conv": Choice((3, 4, 5)),
    "depth_fc": Choice((2, 3, 4)),
    "width_conv": Choice((4, 8, 12)),
    "width_fc": Choice((64, 128, 192)),
    "batch_norm": Fixed(True),
    "dropout": Fixed(0.5),
    "l2": Fixed(0.0),
    "weight_decay": Fixed(0.0),
    "train_fraction": Fixed(1.0),
    "epochs": Fixed(1000),
    "images_per_epoch": Fixed(None),
}

FIXED_ARCHITECTURE = {
    "filter_size": Fixed(5),
    "depth_conv": Fixed(3),
    "depth_fc": Fixed(2),
    "width_conv": Fixed(8),
    "width_fc": Fixed(128),
}

SMALL_CNN = {
    "dataset": Choice(("mnist", "fashion-mnist", "cifar10", "svhn")),
    "learning_rate": Uniform(5e-4, 5e-2, log=True),
    "learning_rate_schedule": Fixed("constant"),
    "batch_size": Fixed(512),
    "augmentation": Fixed(False),
    "optimizer": Choice(("sgd", "adam", "rmsprop")),
    "activation": Choice(("relu", "tanh")),
    "initialization": Choice(("glorot_normal", "normal", "truncated_normal", "orthogonal", "he_normal")),
    "init_std": Uniform(1e-3, 0.5, log=True),
    "filter_size": Fixed(3),
    "depth_conv": Fixed(3),
    "depth_fc": Fixed(None),
    "width_conv": Fixed(16),
    "width_fc": Fixed(None),
    "batch_norm": Fixed(False),
    "dropout": Uniform(0.0, 0.7),
    "l2": Uniform(1e-8, 1e-2, log=True),
    "weight_decay": Fixed(0.0),
    "train_fraction": Choice((0.1, 0.25, 0.5, 1.0)),
    "epochs": Fixed(86),
    "images_per_epoch": Fixed(None),
}


@pytest.mark.parametrize(
    ("preset", "expected"),
    [("nws-main", NWS_MAIN), ("nws-fixed", NWS_MAIN | FIXED_ARCHITECTURE), ("small-cnn", SMALL_CNN)],
)
def test_properties_are_the_studys(preset, expected):
    assert dict(Space.load(preset=preset).properties) == expected
    assert set(expected) == set(PROPERTIES)


def test_settings_of_nws():
    for preset in ("nws-main", "nws-fixed"):
        settings = Space.load(preset=preset).settings
        assert settings.family == "nws"
        assert (settings.optimizer_form, settings.momentum) == ("tf1", 0.95)
        assert (settings.init_constant, settings.gamma_std) == (0.1, 0.002)
        assert settings.early_stopping
        assert (settings.min_epochs, settings.stop_worse, settings.stop_below, settings.stop_flat) == (
            20,
            5,
            30,
            30,
        )
        assert settings.snapshots == 20
        assert settings.validation_fraction == 0.1
        assert settings.validation_images is None
        assert settings.test_images is None


def test_settings_of_small_cnn():
    settings = Space.load(preset="small-cnn").settings
    assert settings.family == "small-cnn"
    assert settings.optimizer_form == "keras"
    assert not settings.early_stopping
    assert settings.snapshots == (0, 1, 2, 3, 20, 40, 60, 80, 86)


@pytest.mark.parametrize(("preset", "size"), [("nws-fixed", 92_868), ("small-cnn", 4_970)])
def test_architecture_of_presets_with_one(preset, size):
    members = Space.load(preset=preset).members(0, range(50))
    assert {Layout(member.architecture).size for member in members} == {size}
    assert len({member.architecture for member in members}) == 1


VARIED = {
    "preset": "nws-main",
    "learning_rate": {"log_uniform": [1e-4, 1]},
    "epochs": {"uniform": [2, 9]},
    "activation": {"choice": ["relu", "gelu"], "weights": [1, 3]},
    "optimizer": {"choice": ["sgd"], "weights": [2]},
    "depth_fc": {"uniform": [1, 4]},
    "train_fraction": [1, 0.5],
    "images_per_epoch": [None, 500],
    "snapshots": [0, 2],
    "test_images": 100,
}


@pytest.mark.parametrize("config", [*({"preset": name} for name in PRESETS), VARIED], ids=[*PRESETS, "varied"])
def test_round_trip(config):
    space = Space.from_config(config)
    table = space.to_config()
    assert "preset" not in table
    assert Space.from_config(table) == space
    assert Space.from_config(table).to_config() == table
    assert Space.from_config(table).members(3, range(20)) == space.members(3, range(20))
    assert pickle.loads(pickle.dumps(space)) == space
    assert copy.deepcopy(space) == space


def test_different_spaces_are_not_equal():
    base = Space.load(preset="nws-main")
    assert base != Space.load(preset="nws-fixed")
    assert base != Space.load(preset="nws-main", overrides={"momentum": 0.9})
    assert base != Space.load(preset="nws-main", overrides={"learning_rate": {"log_uniform": [0.0002, 0.005]}})


def test_all_images_may_be_one_of_a_choice():
    space = Space.load(preset="nws-main", overrides={"images_per_epoch": ["all", 500], "test_images": "all"})
    assert space.choices("images_per_epoch") == (None, 500)
    assert {member.setup.images_per_epoch for member in space.members(0, range(20))} == {None, 500}
    weighted = {"choice": ["all", 500], "weights": [1, 3]}
    assert (
        Space.load(preset="nws-main", overrides={"images_per_epoch": weighted}).choices("images_per_epoch")[0]
        is None
    )


def test_choices():
    space = Space.load(preset="small-cnn")
    assert space.choices("activation") == ("relu", "tanh")
    assert space.choices("learning_rate") == (5e-4, 5e-2)
    assert space.choices("epochs") == (86,)
    assert space.choices("depth_fc") == (None,)


def test_arrow_types():
    types = arrow_types()
    assert list(types) == list(PROPERTIES)
    kinds = {
        "string": {
            "dataset",
            "optimizer",
            "learning_rate_schedule",
            "activation",
            "initialization",
        },
        "bool": {"augmentation", "batch_norm"},
        "double": {"learning_rate", "init_std", "dropout", "l2", "weight_decay", "train_fraction"},
    }
    for kind, names in kinds.items():
        assert {name for name, value in types.items() if value == kind} == names
    assert {types[name] for name in set(PROPERTIES) - set.union(*kinds.values())} == {"int64"}
