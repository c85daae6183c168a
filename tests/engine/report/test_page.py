"""The page is whole: well-formed, complete, offline, and its figures show the numbers of their CSV files."""

from __future__ import annotations

import base64
import csv
import io
import shlex
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlparse
from xml.etree import ElementTree

import numpy as np
import pytest
from msgspec import structs
from typer.testing import CliRunner

from wse.cli.app import app
from wse.engine.errors import UsageError, WseError
from wse.engine.meta import write_study
from wse.engine.report import write_report
from wse.engine.report.facts import commands, space_toml
from wse.engine.report.figures import embedding, embedding_figures, study_figures
from wse.engine.report.figures.scores import is_baseline
from wse.engine.report.page import sections
from wse.engine.report.standalone import standalone
from wse.engine.report.svg import around, ticks
from wse.engine.space import Space
from wse.engine.zoo import Zoo

from .studies import LAYERS, MODELS, invented_study

SVG = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Elements with the section they stand in; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str | None] = []
        self.elements: list[tuple[str, dict[str, str], str | None]] = []
        self.words: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.note(tag, attributes)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.note(tag, attributes)
        if tag not in VOID:
            self.open.append(tag)
            if tag == "section":
                self.sections.append(dict(attributes).get("id"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self.sections.pop()

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.words.setdefault(self.open[-1], []).append(data.strip())

    def note(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        inside = self.sections[-1] if self.sections else None
        self.elements.append((tag, {name: value or "" for name, value in attributes}, inside))

    def attribute(self, name: str, section: str | None = None) -> list[str]:
        return [
            found[name]
            for _, found, inside in self.elements
            if name in found and (section is None or inside == section)
        ]


@pytest.fixture(scope="module")
def parsed(page: Path) -> Page:
    return Page(page.read_text())


def rows_of(page: Path, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((page.with_name("report-data") / f"{name}.csv").read_text())))


def test_headings_are_in_order(parsed: Page) -> None:
    levels = [int(tag[1]) for tag, _, _ in parsed.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    titles = [
        "The population",
        "Reading all:5000",
        "Reading conv3",
        "The space of weights",
        "What not to conclude",
    ]
    assert parsed.words["h2"] == titles


def test_all_that_a_study_has_is_shown(parsed: Page) -> None:
    shown = [name for name in parsed.attribute("id") if name.startswith("study-1-") and not name.endswith("title")]
    views = [
        "scores",
        "layer",
        "progress",
        "status",
        "permuted",
        "length",
        "maps",
        "confusion",
        "calibration",
        "fits",
    ]
    assert sorted(shown) == sorted(f"study-1-{view}" for view in views)
    little = [
        name for name in parsed.attribute("id") if name.startswith("study-2-") and not name.endswith("title")
    ]
    assert sorted(little) == [f"study-2-{view}" for view in ("calibration", "confusion", "fits", "scores")]


def test_a_study_of_baselines_alone_is_shown() -> None:
    study = invented_study(views=False)
    scores = tuple(score for score in study.scores if score.model == "majority")
    confusions = tuple(structs.replace(confusion, model="majority") for confusion in study.confusions)
    alone = structs.replace(study, models={"majority": ""}, scores=scores, confusions=confusions)
    figures = study_figures(alone, "study")
    assert [figure.name for figure in figures] == ["study-scores", "study-calibration"]
    assert all(standalone(figure).startswith("<svg") for figure in figures)


def test_anchors_lead_somewhere(parsed: Page) -> None:
    names = parsed.attribute("id")
    assert len(names) == len(set(names))
    anchors = [link[1:] for link in parsed.attribute("href") if link.startswith("#")]
    assert len(anchors) == 5
    assert set(anchors) <= set(names)
    assert set(parsed.attribute("aria-labelledby")) <= set(names)


def test_nothing_comes_from_elsewhere(page: Path, parsed: Page) -> None:
    links = [*parsed.attribute("href"), *parsed.attribute("src")]
    for link in links:
        scheme = urlparse(link).scheme
        assert scheme in ("", "data"), link[:80]
        assert scheme or link.startswith("#") or (page.parent / link).is_file(), link
    text = page.read_text()
    assert not {"script", "iframe", "object", "embed", "base"} & {tag for tag, _, _ in parsed.elements}
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_every_chart_has_a_name_and_a_description(parsed: Page) -> None:
    charts = [found for tag, found, _ in parsed.elements if tag == "svg" and "aria-hidden" not in found]
    assert len(charts) > 40
    assert all(found["role"] == "img" and ". " in found["aria-label"] for found in charts)
    assert len(parsed.words["desc"]) == len(charts)
    assert not any("nan" in value for value in parsed.attribute("d"))


def test_csv_files_and_those_in_the_page_are_the_same(page: Path, parsed: Page) -> None:
    folder = page.with_name("report-data")
    links = [found for tag, found, _ in parsed.elements if tag == "a" and "download" in found]
    inside = [found for found in links if found["href"].startswith("data:")]
    for found in inside:
        content = base64.b64decode(found["href"].partition("base64,")[2])
        assert content == (folder / found["download"]).read_bytes()
    numbers = [found for found in links if found["download"].endswith((".csv", ".toml"))]
    assert 0 < len(inside) < len(numbers)  # the long ones are in the folder alone
    assert {found["download"] for found in links} == {path.name for path in folder.iterdir()}


def test_each_figure_is_a_file_with_all_its_charts_and_style(page: Path, parsed: Page) -> None:
    folder = page.with_name("report-data")
    figures = sorted(folder.glob("*.svg"))
    assert len(figures) > 10
    charts = 0
    for path in figures:
        root = ElementTree.parse(path).getroot()
        assert root.tag == f"{SVG}svg"
        assert "prefers-color-scheme" in (root.findtext(f"{SVG}style") or "")
        left, top, width, height = (float(number) for number in root.attrib["viewBox"].split())
        inner = root.findall(f"{SVG}svg")
        for chart in inner:
            x, y, w, h = (float(chart.attrib[name]) for name in ("x", "y", "width", "height"))
            assert left < x
            assert top < y
            assert x + w < left + width
            assert y + h < top + height
        charts += len(inner)
    assert charts == sum(tag == "svg" and "aria-label" in found for tag, found, _ in parsed.elements)


@pytest.mark.parametrize("name", ["study-1-scores", "study-2-scores"])
def test_dots_are_the_scores_of_the_csv(page: Path, parsed: Page, name: str) -> None:
    shown = [float(value) for value in parsed.attribute("data-value", name)]
    kept = [float(row["value"]) for row in rows_of(page, name) if row["metric"] in ("accuracy", "r2")]
    assert len(shown) == 10 * len(MODELS)
    assert sorted(shown) == sorted(kept)


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("learning-curves", ["50 %"]),
        ("accuracy-by-property", ["50 %"]),
        ("status", ["members"]),
        ("study-1-layer", ["value"]),
        ("study-1-progress", ["value"]),
    ],
)
def test_marks_are_numbers_of_the_csv(page: Path, parsed: Page, name: str, columns: list[str]) -> None:
    shown = [float(value) for value in parsed.attribute("data-value", name)]
    kept = {float(row[column]) for row in rows_of(page, name) for column in columns}
    assert shown
    assert set(shown) <= kept


def test_the_learning_curves_are_the_zoos(page: Path, studied_zoo: Zoo) -> None:
    last = rows_of(page, "learning-curves")[-1]
    assert int(last["epoch"]) == 2
    assert float(last["50 %"]) == pytest.approx(np.median(studied_zoo.members["test_accuracy"].to_numpy()))


def test_confusion_counts(page: Path, parsed: Page) -> None:
    shown = sorted(map(int, parsed.attribute("data-value", "study-1-confusion")))
    best = {}
    for row in rows_of(page, "study-1-scores"):
        if row["metric"] == "accuracy" and row["model"] in ("linear", "boosting", "dmc"):
            best[row["target"]] = max(best.get(row["target"], (0.0, "")), (float(row["value"]), row["model"]))
    kept = [
        int(row["items"]) for row in rows_of(page, "study-1-confusion") if row["model"] == best[row["target"]][1]
    ]
    assert shown == sorted(kept)


def test_maps_name_their_layers(page: Path, parsed: Page) -> None:
    assert len(rows_of(page, "study-1-maps")) == 6 * 100 * 20
    assert all(parsed.words["text"].count(layer) >= 6 for layer in LAYERS)
    pictures = [link for link in parsed.attribute("href", "study-1-maps") if link.startswith("data:image/png")]
    assert len(pictures) == 2 * 6  # each with its scale


def test_a_map_is_drawn_from_chance_up(studied_zoo: Zoo) -> None:
    from matplotlib.image import imread

    study = invented_study()
    figure = next(figure for figure in study_figures(study, "s") if figure.name == "s-maps")
    link = figure.panels[0].partition('href="data:image/png;base64,')[2].partition('"')[0]
    picture = imread(io.BytesIO(base64.b64decode(link)))
    values = np.array(study.maps[0].probabilities).T[::-1]
    assert picture.shape[:2] == values.shape
    guessing = values <= study.maps[0].chance
    assert guessing.any()
    assert np.ptp(picture[guessing], axis=0).max() == 0
    assert (picture[values == values.max()] != picture[guessing][0]).any()


def test_baselines_are_marked() -> None:
    assert [name for name in MODELS if is_baseline(name)] == ["majority", "setup"]
    figure = study_figures(invented_study(), "s")[0]
    assert all(panel.count('class="ring"') == 2 for panel in figure.panels)


def test_the_zoo_can_be_made_again(page: Path, studied_zoo: Zoo, tmp_path: Path, monkeypatch) -> None:
    space = page.with_name("report-data") / "space.toml"
    assert Space.load(file=space) == Space.from_config(studied_zoo.manifest.space)
    (tmp_path / "report-data").mkdir()
    (tmp_path / "report-data" / "space.toml").write_bytes(space.read_bytes())
    (words,) = commands(studied_zoo.manifest, ["report-data/space.toml"])
    assert words in page.read_text()
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, shlex.split(words)[1:])
    assert done.exit_code == 0, done.output
    again = Zoo.open("zoo")
    for member in studied_zoo:
        np.testing.assert_array_equal(again[member].weights(), studied_zoo[member].weights())


@pytest.mark.parametrize("images", ["all", 500, ["all", 500]], ids=str)
@pytest.mark.parametrize("preset", ["nws-main", "nws-fixed", "small-cnn"])
def test_a_space_is_written_whole(preset: str, images: object, tmp_path: Path) -> None:
    space = Space.load(preset=preset, overrides={"images_per_epoch": images})
    (tmp_path / "space.toml").write_text(space_toml(space.to_config()))
    assert Space.load(file=tmp_path / "space.toml") == space


def test_studies_have_titles_of_their_own(studied_zoo: Zoo, tmp_path: Path) -> None:
    for name in ("zoo.json", "members.parquet", "snapshots.parquet"):
        (tmp_path / name).write_bytes((studied_zoo.folder / name).read_bytes())
    study = invented_study(views=False)
    write_study(tmp_path / "meta" / "a", study)
    write_study(tmp_path / "meta" / "b", study)
    write_study(tmp_path / "meta" / "c", structs.replace(study, holdout="dataset=mnist"))
    write_study(tmp_path / "meta" / "d", structs.replace(study, shuffled=True))
    found = sections(Zoo.open(tmp_path), embedding=False)[1:]
    assert [section.title for section in found] == [
        "Reading all:5000",
        "Reading all:5000 (study 2)",
        "Reading all:5000, held out: dataset=mnist",
        "Reading all:5000, answers shuffled",
    ]
    told = [any("each other's answers" in note for note in section.notes) for section in found]
    assert told == [False, False, False, True]


def test_studies_elsewhere_are_shown_once(studied_zoo: Zoo, tmp_path: Path) -> None:
    kept, away, other = tmp_path / "zoo" / "meta" / "a", tmp_path / "away", tmp_path / "other"
    kept.mkdir(parents=True)
    for name in ("zoo.json", "members.parquet", "snapshots.parquet"):
        (tmp_path / "zoo" / name).write_bytes((studied_zoo.folder / name).read_bytes())
    zoo = Zoo.open(tmp_path / "zoo")
    study = structs.replace(invented_study(views=False), zoo_seed=zoo.manifest.seed)
    write_study(kept, study)
    write_study(away, structs.replace(study, slice="conv2"))
    write_study(other, structs.replace(study, zoo_seed=99))
    page = tmp_path / "page.html"
    write_report(zoo, page, studies=[away, kept, away], embedding=False)
    titles = Page(page.read_text()).words["h2"]
    assert titles == ["The population", "Reading all:5000", "Reading conv2", "What not to conclude"]
    assert f"read from {study.zoo}" in page.read_text()
    with pytest.raises(UsageError, match=r"other is of .* with seed 99, and .* leave out that --study"):
        write_report(zoo, page, studies=[other], embedding=False)
    with pytest.raises(UsageError, match=r"nowhere: there is no study\.json in it"):
        write_report(zoo, page, studies=[tmp_path / "nowhere"], embedding=False)


def test_a_page_named_after_its_zoo_leaves_it_alone(studied_zoo: Zoo) -> None:
    before = sorted(studied_zoo.folder.iterdir())
    write_report(studied_zoo, studied_zoo.folder.with_suffix(".html"), embedding=False)
    assert sorted(studied_zoo.folder.iterdir()) == before


def test_a_zoo_without_studies_and_embedding(studied_zoo: Zoo, tmp_path: Path) -> None:
    for name in ("zoo.json", "members.parquet", "snapshots.parquet"):
        (tmp_path / name).write_bytes((studied_zoo.folder / name).read_bytes())
    write_report(Zoo.open(tmp_path), tmp_path / "page.html", embedding=False)  # the weights are not even there
    bare = Page((tmp_path / "page.html").read_text())
    assert bare.words["h2"] == ["The population", "What not to conclude"]


def test_a_damaged_study_is_named(studied_zoo: Zoo, tmp_path: Path) -> None:
    for name in ("zoo.json", "members.parquet", "snapshots.parquet"):
        (tmp_path / name).write_bytes((studied_zoo.folder / name).read_bytes())
    write_study(tmp_path / "meta" / "all", invented_study(views=False))
    (tmp_path / "meta" / "all" / "study.json").write_text("{}")
    with pytest.raises(WseError, match=r"study\.json is damaged"):
        write_report(Zoo.open(tmp_path), tmp_path / "page.html", embedding=False)
    assert not (tmp_path / "page.html").exists()


def test_names_are_written_as_text(studied_zoo: Zoo, tmp_path: Path) -> None:
    folder = tmp_path / "<b>zoo & co"
    folder.mkdir()
    for name in ("zoo.json", "members.parquet", "snapshots.parquet"):
        (folder / name).write_bytes((studied_zoo.folder / name).read_bytes())
    write_report(Zoo.open(folder), tmp_path / "page.html", embedding=False)
    assert Page((tmp_path / "page.html").read_text()).words["h1"] == ["<b>zoo & co"]


def test_where_a_page_cannot_be(studied_zoo: Zoo, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.html"):
        write_report(studied_zoo, tmp_path / "page.txt")
    with pytest.raises(WseError, match="--out"):
        write_report(studied_zoo, tmp_path / "missing" / "page.html")
    (tmp_path / "page-data").write_text("a file where the folder would be")
    with pytest.raises(WseError, match="--out"):
        write_report(studied_zoo, tmp_path / "page.html")


def test_every_network_is_a_point(page: Path, parsed: Page) -> None:
    for name in ("weights-pca", "weights-tsne"):
        rows = rows_of(page, name)
        assert [int(row["member"]) for row in rows] == list(range(12))
        counts = list(map(int, parsed.attribute("data-count", name)))
        assert sum(counts) == 12 * (len(rows[0]) - 3)  # once for each column it is coloured by


def test_large_populations_are_thinned(studied_zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MOST_POINTS", 7)
    pca, tsne = embedding_figures(studied_zoo)
    assert len(pca.rows) == len(tsne.rows) == 7
    assert "7 of 12 networks" in pca.caption


def test_the_embedding_puts_like_networks_together(studied_zoo: Zoo) -> None:
    pca, _ = embedding_figures(studied_zoo)
    column = pca.header.index("initialization")
    names = [row[column] for row in pca.rows]
    points = np.array([row[1:3] for row in pca.rows])
    centres = {name: points[[other == name for other in names]].mean(axis=0) for name in set(names)}
    nearest = [min(centres, key=lambda name: float(np.linalg.norm(point - centres[name]))) for point in points]
    assert nearest == names  # weights of standard deviation 1 and Glorot's are far apart


def test_features_describe_the_right_layer(studied_zoo: Zoo) -> None:
    items = studied_zoo.items(members=[0])  # one architecture: layer by layer
    row = embedding.features(items)[0]
    layers = items.layout(0).layers
    size = len(row) // len(layers)
    for place, layer in enumerate(layers):
        weight = studied_zoo[0].state_dict()[f"{layer}.weight"].numpy()
        mine = row[place * size : (place + 1) * size]
        np.testing.assert_allclose(mine[:2], [weight.mean(), weight.var()], rtol=1e-5)
        np.testing.assert_allclose(mine[4], weight.min())


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-0.03, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (0, 20, [0, 5, 10, 15, 20])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    np.testing.assert_allclose(ticks(low, high), expected, atol=1e-12)


def test_bounds_hold_the_values() -> None:
    assert around([0.03, 0.91, float("nan")]) == pytest.approx((0, 1))
    low, high = around([-0.042, 0.031])
    assert low <= -0.042 < 0.031 <= high
    assert around([]) == (0, 1)
    assert around([3.0])[0] <= 3 < around([3.0])[1]
