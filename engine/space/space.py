"""A space: the distribution that members are drawn from, read from a preset, a TOML file and overrides."""

from __future__ import annotations

import difflib
import tomllib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from msgspec.inspect import IntType, LiteralType, type_info

from wse.kernels.philox import Stream, philox4x32

from ..errors import UsageError
from ..nets import FAMILIES, Architecture
from .distribution import Choice, Distribution, Fixed, Uniform, capped, in_range, parse, shown
from .setup import PROPERTIES, SETTINGS, Settings, Setup

PRESETS: tuple[str, ...] = ("nws-main", "nws-fixed", "small-cnn")

MAX_SEED = 2**64 - 1
MAX_MEMBER = 2**32 - 1

_FIELDS = {field.name: field.type for kind in (Setup, Settings) for field in msgspec.structs.fields(kind)}
# Initialisations with a free scale; for the others `init_std` does not apply.
_SCALED = ("normal", "truncated_normal")
# Numbers of images that may be "all", which is None here: TOML has no null.
_UP_TO_ALL = ("images_per_epoch", "training_images", "validation_images", "test_images")


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One network to be trained: a pure function of (space, seed, id).

    Attributes:
        id: 0, 1, 2, ...
        seed: the run's seed.
        setup: its value of every property.
        architecture: its layers.
    """

    id: int
    seed: int
    setup: Setup
    architecture: Architecture


@dataclass(frozen=True, kw_only=True)
class Space:
    """The distribution of set-ups, and the settings that hold for all members.

    Attributes:
        properties: a distribution for every property of ``Setup``.
        settings: what does not vary.
    """

    properties: Mapping[str, Distribution]
    settings: Settings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Space:
        """A space from the flat table of a space file.

        Args:
            config: keys are properties and settings; ``preset`` names what the other keys override.

        Raises:
            UsageError: an unknown key, an impossible value, a missing key; the message names the key.
        """
        config = dict(config)
        preset = config.pop("preset", None)
        if preset is not None:
            config = {**_preset(preset), **config}
        for key in config:
            if key not in _FIELDS:
                name = shown(key).strip("'\"")
                raise UsageError(f"unknown key `{name}` in the space{_suggestion(str(key))}")
        family = FAMILIES[_value("family", config.get("family"))]
        for key in ("depth_fc", "width_fc"):
            if key not in family.properties:
                if config.get(key) is not None:
                    raise UsageError(f"`{key}` does not apply to the {config['family']} family: leave it out")
                config[key] = None
        for optional in ("init_std", *_UP_TO_ALL):
            config.setdefault(optional, None)
        missing = [key for key in (*PROPERTIES, *SETTINGS) if key not in config]
        if missing:
            raise UsageError(f"the space lacks `{'`, `'.join(missing)}`: start from a preset ({_or(PRESETS)})")
        space = cls(
            properties=MappingProxyType({key: _distribution(key, config[key]) for key in PROPERTIES}),
            settings=Settings(**{key: _value(key, config[key]) for key in SETTINGS}),
        )
        space._check()
        return space

    @classmethod
    def load(
        cls, *, preset: str | None = None, file: Path | None = None, overrides: Mapping[str, Any] | None = None
    ) -> Space:
        """A space from a preset, a TOML file over it, and single keys over both.

        Args:
            preset: a name in ``PRESETS``; wins over the file's own ``preset``.
            file: a TOML file with the keys of ``docs/space.md``.
            overrides: keys that win over everything.

        Raises:
            UsageError: the file is not there or not TOML, or as for ``from_config``.
        """
        config: dict[str, Any] = _read_toml(file) if file is not None else {}
        if preset is not None:
            config["preset"] = preset
        return cls.from_config({**config, **(overrides or {})})

    def to_config(self) -> dict[str, Any]:
        """The complete flat table; ``from_config`` makes the same space of it."""
        config = {key: distribution.to_config() for key, distribution in self.properties.items()}
        return {**config, **msgspec.to_builtins(self.settings)}

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled, and worker processes are sent spaces.
        return Space.from_config, (self.to_config(),)

    def capped(self, name: str, most: int) -> Space:
        """The space with a property that is nowhere more than ``most``; see ``capped`` of distributions.

        Args:
            name: of a property of whole numbers, or one that may be "all".
            most: at least 1.
        """
        return Space.from_config({**self.to_config(), name: capped(self.properties[name], most).to_config()})

    def choices(self, name: str) -> tuple[Any, ...]:
        """The values a property can take if they are countable; the bounds of a uniform distribution if not."""
        return self.properties[name].examples()

    @property
    def all_choices(self) -> dict[str, tuple[Any, ...]]:
        """``choices`` of every property whose values are countable."""
        countable = (name for name, found in self.properties.items() if not isinstance(found, Uniform))
        return {name: self.choices(name) for name in countable}

    def members(self, seed: int, ids: Sequence[int] | range) -> list[Member]:
        """Draw members.

        Args:
            seed: 64-bit seed of the run.
            ids: the members' ids.

        Returns:
            The members in the order of ``ids``. Each depends on nothing but (space, seed, its id).

        Raises:
            UsageError: seed or ids are out of range.
        """
        if not 0 <= seed <= MAX_SEED:
            raise UsageError(f"`seed` (={seed}) must be from 0 to {MAX_SEED}")
        if len(ids) and not (min(ids) >= 0 and max(ids) <= MAX_MEMBER):
            raise UsageError(f"member ids must be from 0 to {MAX_MEMBER}")
        members = np.asarray(ids, dtype=np.uint64)
        columns: dict[str, Iterable[Any]] = {}
        for name, distribution in self.properties.items():
            # Addressed by the property's name, so a property more or less leaves the others' draws as they are.
            words = philox4x32(seed, (zlib.crc32(name.encode()), 0, members, Stream.PROPERTY))[..., 0]
            columns[name] = distribution.draw(words)
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return [self._member(seed, int(member), row) for member, row in zip(members, rows, strict=True)]

    def _member(self, seed: int, member: int, row: dict[str, Any]) -> Member:
        if row["initialization"] not in _SCALED:
            row["init_std"] = None
        family = FAMILIES[self.settings.family]
        architecture = _architecture(self.settings.family, tuple((name, row[name]) for name in family.properties))
        if row["depth_fc"] == 0:
            row["width_fc"] = None
        return Member(id=member, seed=seed, setup=Setup(**row), architecture=architecture)

    def _check(self) -> None:
        """What single values cannot show."""
        std = self.properties["init_std"]
        needs_std = [name for name in self.choices("initialization") if name in _SCALED]
        if needs_std and None in std.examples():
            raise UsageError(f"`init_std` must be set: the initialisation {needs_std[0]} needs it")
        family = FAMILIES[self.settings.family]
        widest = {name: self.properties[name].examples() for name in family.properties}
        for name, values in widest.items():
            if None in values:
                raise UsageError(f"`{name}` must be set: the {self.settings.family} family needs it")
        if True in self.choices("batch_norm"):
            for name in ("batch_size", "images_per_epoch"):
                if 1 in self.choices(name):
                    raise UsageError(
                        f"`{name}` (=1) must be at least 2: batch normalisation has no use of one image"
                    )
        # An architecture that cannot be built shows at the extremes of depth, width and filter size.
        for pick in (min, max):
            _architecture(self.settings.family, tuple((name, pick(widest[name])) for name in widest))
        for depth in widest["depth_conv"]:
            parts = {name: max(values) for name, values in widest.items()} | {"depth_conv": depth}
            _architecture(self.settings.family, tuple(parts.items()))
        for depth in widest.get("depth_fc", ()):
            parts = {name: min(values) for name, values in widest.items()} | {"depth_fc": depth}
            _architecture(self.settings.family, tuple(parts.items()))


def parse_override(text: str) -> tuple[str, Any]:
    """A ``key=value`` from the command line.

    The value is written as in TOML, and two things shorter: a bare word is a string, and commas make a choice
    (``optimizer=adam,momentum``).

    Raises:
        UsageError: there is no "=" or the value cannot be read.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text!r} must be key=value, for instance --set epochs=2")
    parsed = _parse_value(value.strip())
    if parsed is None and "," in value and value.strip()[0] not in "[{\"'":
        parts = [_parse_value(part.strip()) for part in value.split(",")]
        parsed = None if None in parts else parts
    if parsed is None:
        raise UsageError(
            f"--set {text!r}: cannot read the value; write a number, a word, a list such as adam,momentum "
            "or a table such as {uniform=[0.001,0.01]}"
        )
    return key.strip(), parsed


def _parse_value(text: str) -> Any:
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):  # not TOML, a number of thousands of digits, or thousands of brackets
        is_word = text and all(letter.isalnum() or letter in "-_." for letter in text)
        return text if is_word else None
    return table["value"] if len(table) == 1 else None  # a line break in it would make other keys


@lru_cache(maxsize=4096)
def _architecture(family: str, values: tuple[tuple[str, Any], ...]) -> Architecture:
    return FAMILIES[family].build(**dict(values))


@lru_cache
def _preset_text(name: str) -> str:
    return (resources.files(__package__) / "presets" / f"{name}.toml").read_text(encoding="utf-8")


def _preset(name: Any) -> dict[str, Any]:
    if name not in PRESETS:
        raise UsageError(f"unknown preset {shown(name)}: use {_or(PRESETS)}")
    config = tomllib.loads(_preset_text(name))
    base = config.pop("preset", None)
    return {**_preset(base), **config} if base else config


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the space file {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # TOML's and UTF-8's errors are ValueErrors
        raise UsageError(f"the space file {file} is not TOML: {error}") from None


def _distribution(key: str, config: Any) -> Distribution:
    try:
        distribution = parse(config, integer=_takes_integers(key))
    except ValueError as error:
        raise UsageError(f"`{key}`: {error}") from None
    checked = tuple(_value(key, value) for value in distribution.examples())
    match distribution:
        case Fixed():
            return Fixed(checked[0])
        case Choice():
            if len(set(checked)) < len(checked):
                raise UsageError(f"`{key}`: a choice must not name a value twice (={shown(list(checked))})")
            return Choice(checked, distribution.weights)
        case Uniform():
            if not all(isinstance(value, (int, float)) for value in checked):
                raise UsageError(f"`{key}` has no order to be uniform in: give a list of values")
            return distribution


def _takes_integers(key: str) -> bool:
    kind = type_info(_FIELDS[key])
    return any(isinstance(option, IntType) for option in getattr(kind, "types", (kind,)))


def _value(key: str, value: Any) -> Any:
    """``value`` as the type of ``key``, or an error that names both."""
    if value == "all" and key in _UP_TO_ALL:
        return None
    for number in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(number, (int, float)) and not in_range(number):
            raise UsageError(f"`{key}` (={shown(number)}): must be finite and, if whole, less than 2**63")
    try:
        return msgspec.convert(value, _FIELDS[key])
    except (msgspec.ValidationError, UnicodeError) as error:
        kind = type_info(_FIELDS[key])
        rule = f"must be {_or(map(str, kind.values))}" if isinstance(kind, LiteralType) else str(error).lower()
        raise UsageError(f"`{key}` (={shown(value)}): {rule}") from None


def _suggestion(key: str) -> str:
    close = difflib.get_close_matches(key, [*PROPERTIES, *SETTINGS], n=1)
    return f": did you mean `{close[0]}`?" if close else ": the keys are listed in docs/space.md"


def _or(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
