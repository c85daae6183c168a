"""Files of a zoo that nobody wrote: whatever they hold, what comes is an error a user can read."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wse.engine.errors import WseError
from wse.engine.zoo import Shard, Zoo
from wse.engine.zoo.format import _NO_CHECKSUM, _checksum_entry
from wse.engine.zoo.journal import Journal, _canonical

from .conftest import Maker, member_result

fuzzed = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["members.parquet", "../zoo.json", "norm", 2**63, -1, 10**400])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@st.composite
def changed(draw: st.DrawFn, data: Any) -> Any:
    """A JSON value with one place in it replaced, removed or doubled, at any depth."""
    if isinstance(data, (dict, list)) and data and draw(st.integers(0, 9)):
        keys = sorted(data) if isinstance(data, dict) else range(len(data))
        key = draw(st.sampled_from(keys))
        copy: Any = dict(data) if isinstance(data, dict) else list(data)
        if not draw(st.integers(0, 6)):
            del copy[key]
        else:
            copy[key] = draw(changed(data[key]))
        return copy
    return draw(values)


def one_line(error: WseError) -> None:
    assert "\n" not in str(error)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Maker().make(tmp_path_factory.mktemp("fuzzed") / "zoo").folder


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzzed") / "zoo"
    writer = Maker().create(folder)
    for member in (0, 1, 2):
        writer.add(member_result(member))
    writer.close()
    return folder


def open_and_read(folder: Path) -> None:
    try:
        zoo = Zoo.open(folder)
        zoo.verify()
        for member in zoo:
            zoo[member].weights()
    except WseError as error:
        one_line(error)


@fuzzed
@given(data=st.data())
def test_signed_manifests(folder: Path, data: st.DataObject) -> None:
    """A manifest that says anything, with the right checksum."""
    path = folder / "zoo.json"
    whole = path.read_bytes()
    entries = {name: value for name, value in json.loads(whole).items() if name != "checksum"}
    made = data.draw(changed(entries))
    if isinstance(made, dict):
        made["checksum"] = _NO_CHECKSUM
    text = json.dumps(made).encode()
    checksum = hashlib.sha256(text).hexdigest()
    try:
        path.write_bytes(text.replace(_checksum_entry(_NO_CHECKSUM), _checksum_entry(checksum), 1))
        open_and_read(folder)
    finally:
        path.write_bytes(whole)


@fuzzed
@given(data=st.data())
def test_headers_of_shards(folder: Path, tmp_path: Path, data: st.DataObject) -> None:
    whole = (folder / "shards" / "norm-0000.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"]["wse"] = json.loads(header["__metadata__"]["wse"])
    made = data.draw(changed(header))
    if isinstance(made, dict) and isinstance(made.get("__metadata__"), dict):
        made["__metadata__"] = {
            name: json.dumps(value) if data.draw(st.booleans()) or name == "wse" else value
            for name, value in made["__metadata__"].items()
        }
    text = json.dumps(made).encode()
    path = tmp_path / "fuzzed.safetensors"
    path.unlink(missing_ok=True)  # not written into: it may still be mapped
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    try:
        shard = Shard(path)
        for row, count in enumerate(shard.snapshots):
            for snapshot in range(count):
                shard.read(row, snapshot)
    except WseError as error:
        one_line(error)


@fuzzed
@given(content=st.binary(max_size=200))
def test_bytes_instead_of_files(folder: Path, tmp_path: Path, content: bytes) -> None:
    shard, manifest = tmp_path / "fuzzed.safetensors", tmp_path / "zoo.json"
    shard.unlink(missing_ok=True)
    shard.write_bytes(content)
    manifest.write_bytes(content)
    with pytest.raises(WseError) as refused:
        Shard(shard)
    one_line(refused.value)
    with pytest.raises(WseError) as refused:
        Zoo.open(tmp_path)
    one_line(refused.value)


@fuzzed
@given(data=st.data())
def test_signed_lines_of_a_journal(unfinished: Path, data: st.DataObject) -> None:
    journal = Journal(unfinished)
    whole = journal.path.read_bytes()
    lines = [json.loads(line)["entry"] for line in whole.splitlines()]
    made = data.draw(st.lists(st.sampled_from(lines).flatmap(changed), max_size=3))
    text = "".join(
        f'{{"crc32":{zlib.crc32(_canonical(entry).encode())},"entry":{_canonical(entry)}}}\n' for entry in made
    )
    try:
        journal.path.write_text(text)
        list(journal.read([]))
        with pytest.raises(WseError, match="is unfinished") as refused:
            Zoo.open(unfinished)
        one_line(refused.value)
    finally:
        journal.path.write_bytes(whole)
