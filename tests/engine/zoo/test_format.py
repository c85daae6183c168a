from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from wse.engine.errors import UsageError, WseError
from wse.engine.zoo import ArchitectureEntry, Zoo, read_manifest
from wse.engine.zoo.format import write_manifest

from ...zoos import flip_bit
from .conftest import LAYOUTS, Maker, contents


def test_round_trip(maker: Maker, tmp_path: Path) -> None:
    write_manifest(tmp_path, maker.manifest)
    assert read_manifest(tmp_path) == maker.manifest


def test_is_json_for_people_and_other_programs(zoo: Zoo) -> None:
    text = (zoo.folder / "zoo.json").read_text()
    data = json.loads(text)
    assert data["architectures"]["plain"]["tensors"][0] == {
        "name": "conv1.weight",
        "shape": [2, 1, 2, 2],
        "offset": 0,
        "kind": "weight",
        "statistic": False,
    }
    assert list(data) == sorted(data)
    assert max(map(len, text.splitlines())) < 200


def test_nan_is_refused(maker: Maker, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_manifest(tmp_path, maker.having(space={"rate": float("nan")}).manifest)
    assert not contents(tmp_path)


@pytest.mark.parametrize("bit", [0, 2, 5, 7])
def test_flipped_bits_are_found(zoo: Zoo, bit: int) -> None:
    path = zoo.folder / "zoo.json"
    content = path.read_bytes()
    for position in range(bit, len(content), 9):
        flip_bit(path, position, bit)
        try:
            found = read_manifest(zoo.folder)
        except WseError as error:
            told = str(error)
            assert str(path) in told
            assert "\n" not in told
        else:  # an "e" for an "E" in a number
            assert found == zoo.manifest
        path.write_bytes(content)


def test_truncation_is_found(zoo: Zoo) -> None:
    path = zoo.folder / "zoo.json"
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 23):
        path.write_bytes(content[:length])
        with pytest.raises(WseError, match=r"zoo\.json is damaged"):
            read_manifest(zoo.folder)


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"[]", b"null", b'{"format_version": true}', b'"\xff"', b"{}"]
)
def test_nonsense_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "zoo.json").write_bytes(content)
    with pytest.raises(WseError, match=r"zoo\.json is damaged"):
        read_manifest(tmp_path)


def test_newer_format_says_to_update(zoo: Zoo) -> None:
    path = zoo.folder / "zoo.json"
    data = json.loads(path.read_text())
    data["format_version"] = 4
    data["hologram"] = "unknown to this version"
    path.write_text(json.dumps(data))
    with pytest.raises(WseError, match="has format 4, this wse reads formats 1 to 3: update"):
        read_manifest(zoo.folder)


def test_no_zoo(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        read_manifest(tmp_path / "missing")
    with pytest.raises(UsageError, match="is not a zoo"):
        read_manifest(tmp_path)


def test_layout_of_another_version_is_refused() -> None:
    entry = ArchitectureEntry.of(LAYOUTS["plain"])
    assert entry.layout().tensors == LAYOUTS["plain"].tensors
    with pytest.raises(WseError, match="plain is laid out differently"):
        msgspec.structs.replace(entry, tensors=entry.tensors[::-1]).layout()
