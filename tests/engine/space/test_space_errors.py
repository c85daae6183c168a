"""A space that cannot be is refused in one line that names the key; nothing else ever escapes."""

from __future__ import annotations

import math
from importlib import resources

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wse.engine.errors import UsageError
from wse.engine.space import PRESETS, PROPERTIES, SETTINGS, Choice, Fixed, Space, Uniform, parse_override

KEYS = [*PROPERTIES, *SETTINGS]


def refused(config, preset="nws-main"):
    with pytest.raises(UsageError) as error:
        Space.from_config({"preset": preset, **config})
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400
    return str(error.value)


# -- keys


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("optimiser", "optimizer"),
        ("lr_rate", None),
        ("learning_rat", "learning_rate"),
        ("batchsize", "batch_size"),
    ],
)
def test_unknown_key(key, meant):
    message = refused({key: 1})
    assert f"unknown key `{key}`" in message
    if meant:
        assert f"did you mean `{meant}`?" in message


@pytest.mark.parametrize("key", ["zzzzzz", "line\nbreak", "x" * 500, 3])
def test_a_key_like_no_other(key):
    assert "docs/space.md" in refused({key: 1})


@pytest.mark.parametrize("preset", ["nws", "", 3, [1], {"a": 1}, math.nan, True])
def test_unknown_preset(preset):
    message = refused({}, preset=preset)
    assert "unknown preset" in message
    assert "nws-main, nws-fixed or small-cnn" in message


@pytest.mark.parametrize("key", sorted(set(KEYS) - {"family", "init_std", "images_per_epoch"}))
def test_missing_key(key):
    config = Space.load(preset="nws-main").to_config()
    del config[key]
    if key in ("training_images", "validation_images", "test_images"):
        assert getattr(Space.from_config(config).settings, key) is None
        return
    with pytest.raises(UsageError, match=f"lacks `{key}`: start from a preset"):
        Space.from_config(config)


def test_missing_family():
    with pytest.raises(UsageError, match="`family`"):
        Space.from_config({})


def test_init_std_missing_where_it_is_needed():
    config = Space.load(preset="nws-main").to_config()
    del config["init_std"]
    with pytest.raises(UsageError, match="`init_std` must be set: the initialisation normal needs it"):
        Space.from_config(config)
    space = Space.from_config(config | {"initialization": ["glorot_uniform", "orthogonal"]})
    assert space.properties["init_std"] == Fixed(None)
    assert "`init_std`" in refused({"init_std": [None, 0.1]})


@pytest.mark.parametrize("key", ["depth_fc", "width_fc"])
def test_hidden_layers_in_a_family_without(key):
    assert f"`{key}` does not apply to the small-cnn family" in refused({key: 2}, preset="small-cnn")
    assert f"`{key}` must be set: the nws family needs it" in refused({key: None})
    assert f"`{key}` must be set: the nws family needs it" in refused({key: [None, 64]})


# -- values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("dataset", 3),
        ("dataset", ["mnist", 3]),
        ("dataset", {"uniform": [0, 1]}),
        ("optimizer", "adagrad"),
        ("optimizer", ["adam", "adagrad"]),
        ("optimizer", "Adam"),
        ("optimizer", "\udcff"),
        ("optimizer", []),
        ("optimizer", ["adam", "adam"]),
        ("learning_rate", 0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "fast"),
        ("learning_rate", True),
        ("learning_rate", 10**400),
        ("learning_rate", {"uniform": [0.1, 0.01]}),
        ("learning_rate", {"uniform": [0.1, 0.1]}),
        ("learning_rate", {"uniform": [0.0, 0.1]}),
        ("learning_rate", {"uniform": [0.1]}),
        ("learning_rate", {"uniform": [0.1, 0.2, 0.3]}),
        ("learning_rate", {"uniform": ["a", "b"]}),
        ("learning_rate", {"uniform": [0.1, math.inf]}),
        ("learning_rate", {"uniform": [0.1, 10**400]}),
        ("learning_rate", {"uniform": 3}),
        ("learning_rate", {"log_uniform": [0, 0.1]}),
        ("learning_rate", {"log_uniform": [1e-300, 1e300]}),
        ("learning_rate", {"normal": [0, 1]}),
        ("learning_rate", {"uniform": [0.1, 0.2], "log": True}),
        ("learning_rate", {}),
        ("learning_rate_schedule", "linear"),
        ("batch_size", 0),
        ("batch_size", 1),
        ("batch_size", 32.5),
        ("batch_size", 2**63),
        ("batch_size", {"uniform": [1.5, 8.5]}),
        ("batch_size", {"uniform": [8, 2**33]}),
        ("batch_size", {"log_uniform": [8, 64]}),
        ("augmentation", 1),
        ("augmentation", "yes"),
        ("augmentation", {"uniform": [0, 1]}),
        ("activation", "swish"),
        ("activation", {"choice": ["relu", "elu"], "weights": [1]}),
        ("activation", {"choice": ["relu", "elu"], "weights": [0, 0]}),
        ("activation", {"choice": ["relu", "elu"], "weights": [1, -1]}),
        ("activation", {"choice": ["relu", "elu"], "weights": [1, math.nan]}),
        ("activation", {"choice": ["relu", "elu"], "weights": [1e308, 1e308]}),
        ("activation", {"choice": ["relu", "elu"], "weights": [1, 10**400]}),
        ("activation", {"choice": ["relu", "elu"], "weights": 3}),
        ("activation", {"choice": "relu"}),
        ("activation", {"weights": [1]}),
        ("initialization", "xavier"),
        ("init_std", 0),
        ("dropout", 1),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", {"uniform": [0.5, 1]}),
        ("l2", -1),
        ("weight_decay", -1e-9),
        ("train_fraction", 0),
        ("train_fraction", 1.1),
        ("train_fraction", [1, 1.0]),
        ("epochs", 0),
        ("epochs", 2.5),
        ("epochs", 10**30),
        ("epochs", 10**5000),
        ("images_per_epoch", 0),
        ("images_per_epoch", 1),
        ("images_per_epoch", "some"),
        ("batch_norm", "off"),
        ("filter_size", 0),
        ("depth_conv", 2),
        ("depth_conv", [3, 6]),
        ("depth_conv", {"uniform": [3, 6]}),
        ("depth_fc", -1),
        ("width_conv", 0),
        ("width_fc", 4),
        ("width_fc", [128, 4]),
        ("family", "resnet"),
        ("family", ["nws", "small-cnn"]),
        ("optimizer_form", "jax"),
        ("momentum", 1),
        ("momentum", [0.9, 0.95]),
        ("init_constant", math.nan),
        ("init_constant", math.inf),
        ("init_constant", "small"),
        ("gamma_std", -1),
        ("early_stopping", 0),
        ("min_epochs", 0),
        ("stop_worse", 0),
        ("stop_below", 0.5),
        ("stop_flat", None),
        ("snapshots", 1),
        ("snapshots", []),
        ("snapshots", [-1]),
        ("snapshots", [0, "last"]),
        ("snapshots", [0, 10**30]),
        ("validation_fraction", 0),
        ("validation_fraction", 1),
        ("training_images", 0),
        ("test_images", "none"),
        ("validation_images", -5),
    ],
    ids=lambda value: str(value)[:40] if not isinstance(value, int) or value < 2**64 else "huge",
)
def test_impossible_value(key, value):
    assert f"`{key}`" in refused({key: value})


def test_messages_say_what_would_do():
    assert "(='adagrad'): must be adam, momentum, rmsprop or sgd" in refused({"optimizer": "adagrad"})
    assert "(=-1.0)" in refused({"l2": -1.0})
    assert "takes whole numbers" in refused({"batch_size": {"uniform": [1.5, 8.5]}})
    assert "expected `str`" in refused({"dataset": {"uniform": [0, 1]}})
    assert "too small to be halved" in refused({"depth_fc": 8})


def test_depth_of_small_cnn():
    assert "does not fit" in refused({"depth_conv": 5}, preset="small-cnn")
    assert "does not fit" in refused({"depth_conv": [3, 4], "filter_size": [3, 5]}, preset="small-cnn")
    assert "at most 32" in refused({"depth_conv": 10**15, "filter_size": 1}, preset="small-cnn")
    assert Space.from_config({"preset": "small-cnn", "depth_conv": [2, 3, 4]})


# -- files


def test_file_over_preset_and_overrides_over_both(tmp_path):
    file = tmp_path / "space.toml"
    file.write_text('preset = "nws-main"\nepochs = 7\nbatch_size = [16, 32]\ndropout = { uniform = [0.1, 0.4] }\n')
    space = Space.load(file=file, overrides={"epochs": 9})
    assert space.properties["epochs"] == Fixed(9)
    assert space.properties["batch_size"] == Choice((16, 32))
    assert space.properties["dropout"] == Uniform(0.1, 0.4)
    assert space.properties["optimizer"] == Choice(("adam", "rmsprop", "momentum"))
    fixed = Space.load(preset="nws-fixed", file=file)
    assert fixed.properties["filter_size"] == Fixed(5)
    assert fixed.properties["epochs"] == Fixed(7)
    assert Space.load(preset="nws-main", file=file, overrides={"preset": "nws-fixed"}) == fixed


def test_a_complete_file_needs_no_preset(tmp_path):
    text = (resources.files("wse.engine.space") / "presets" / "nws-main.toml").read_text()
    (tmp_path / "own.toml").write_text(text)
    assert Space.load(file=tmp_path / "own.toml") == Space.load(preset="nws-main")


@pytest.mark.parametrize(
    "content",
    [b"epochs = ", b"epochs 3", b"a = 1\na = 2", b"\xff\xfe", b"a = " + b"[" * 5000, b"a = " + b"1" * 5000],
    ids=["cut", "no-equals", "twice", "not-utf8", "deep", "long-number"],
)
def test_bad_file(tmp_path, content):
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"the space file .*bad\.toml is not TOML"):
        Space.load(file=file)


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the space file .*none\.toml: No such file"):
        Space.load(file=tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot read the space file"):
        Space.load(file=tmp_path)


# -- overrides


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("epochs=2", "epochs", 2),
        (" epochs = 2 ", "epochs", 2),
        ("learning_rate=1e-3", "learning_rate", 0.001),
        ("optimizer=adam", "optimizer", "adam"),
        ("optimizer='adam'", "optimizer", "adam"),
        ('optimizer="adam"', "optimizer", "adam"),
        ("optimizer=adam,momentum", "optimizer", ["adam", "momentum"]),
        ("optimizer=adam, momentum", "optimizer", ["adam", "momentum"]),
        ("batch_size=32,64", "batch_size", [32, 64]),
        ("batch_size=[32, 64]", "batch_size", [32, 64]),
        ("augmentation=true", "augmentation", True),
        ("augmentation=true,false", "augmentation", [True, False]),
        ("dataset=fashion-mnist", "dataset", "fashion-mnist"),
        ("learning_rate={uniform=[0.001,0.01]}", "learning_rate", {"uniform": [0.001, 0.01]}),
        ("preset=small-cnn", "preset", "small-cnn"),
        ("images_per_epoch=all", "images_per_epoch", "all"),
        ("a=b=c", None, None),
        ("epochs", None, None),
        ("=2", None, None),
        ("epochs=", None, None),
        ("epochs=,", None, None),
        ("epochs=2,", None, None),
        ("epochs=2,,3", None, None),
        ("epochs=[1", None, None),
        ("optimizer='adam", None, None),
        ("epochs=1\nbatch_size=3", None, None),
        ("epochs=1\n[table]", None, None),
        ("", None, None),
    ],
)
def test_parse_override(text, key, value):
    if key is None:
        with pytest.raises(UsageError) as error:
            parse_override(text)
        assert str(error.value).startswith(f"--set {text!r}")
        return
    assert parse_override(text) == (key, value)
    assert type(parse_override(text)[1]) is type(value)


@pytest.mark.parametrize("text", ["a=" + "[" * 5000, "a=" + "1" * 5000, "a=" + "{a=" * 3000])
def test_monstrous_overrides(text):
    try:
        key, value = parse_override(text)
    except UsageError:
        return
    refused({key: value})


# -- junk: nothing but UsageError


NUMBERS = st.integers() | st.floats() | st.sampled_from([2**63, 10**400, -(10**400), 0, 1, 1e308, 5e-324])
WORDS = st.text() | st.sampled_from(["all", "adam", "relu", "nws", "small-cnn", "normal", "choice", "\udcff"])
SCALARS = NUMBERS | WORDS | st.booleans() | st.none()
TABLE_KEYS = st.sampled_from(["choice", "weights", "uniform", "log_uniform"]) | st.text()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TABLE_KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    preset=st.sampled_from(PRESETS), config=st.dictionaries(st.sampled_from(KEYS) | st.text(), VALUES, max_size=3)
)
@example(preset="small-cnn", config={"depth_conv": 2**62, "filter_size": 1})
@example(preset="nws-main", config={"depth_fc": 2**62})
@example(preset="nws-main", config={"width_conv": 2**62, "filter_size": 2**62})
def test_junk_is_refused_and_nothing_worse(preset, config):
    try:
        space = Space.from_config({"preset": preset, **config})
    except UsageError as error:
        lines = len(str(error).splitlines())
    else:
        lines = 1
        assert Space.from_config(space.to_config()) == space
        space.members(0, range(5))
    assert lines == 1


@settings(max_examples=400)
@given(key=st.sampled_from(KEYS), preset=st.sampled_from(PRESETS), value=VALUES)
def test_junk_for_one_key(key, preset, value):
    try:
        space = Space.from_config({"preset": preset, key: value})
    except UsageError:
        return
    assert Space.from_config(space.to_config()) == space
    space.members(0, range(5))


ODD = st.text(st.sampled_from("=,[]{}\"'#.-_0123456789eE \nabtruefalsn\\\x00é\udcff"), max_size=25)


@settings(max_examples=500)
@given(text=st.text() | ODD | ODD.map("epochs={}".format) | ODD.map("learning_rate={}".format))
def test_any_set_string(text):
    try:
        key, value = parse_override(text)
        Space.load(preset="nws-main", overrides={key: value})
    except UsageError:
        return
    assert key in [*KEYS, "preset"]


LINES = (
    st.builds("{} = {}".format, st.sampled_from([*KEYS, "preset", "[a]", "a.b"]), ODD) | ODD | st.text(max_size=20)
)


def encoded(lines):
    return "\n".join(lines).encode(errors="surrogatepass")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | st.lists(LINES, max_size=4).map(encoded))
@example(content=b"a = " + b"[" * 5000)
@example(content=b'"a\\nb" = 1')
def test_any_space_file(content, tmp_path):
    file = tmp_path / "space.toml"
    file.write_bytes(content)
    try:
        Space.load(preset="nws-main", file=file)
    except UsageError as error:
        lines = len(str(error).splitlines())
    else:
        lines = 1
    assert lines == 1
