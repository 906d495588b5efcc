"""The page of `emotion2vec report`: whole, alone, escaped, readable."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import call
from report_cells import classification_cell, write, write_results, write_vectors

from emotion2vec.reporting import maps
from emotion2vec.reporting.cells import read_results
from emotion2vec.reporting.drawings import Bar, forest, heat, line_chart
from emotion2vec.reporting.maps import map_of
from emotion2vec.reporting.report import write_report

VOID = {"meta", "br", "line", "circle", "polyline", "rect"}


class Reader(HTMLParser):
    """Checks that tags are closed in order; keeps tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the benchmark leaves it."""
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its page."""
    folder = tmp_path_factory.mktemp("page")
    write_report(results, folder, formats=("html",))
    return (folder / "report.html").read_text()


def test_it_is_whole_and_asks_no_server(page: str) -> None:
    reader = Reader(page)
    kinds = {tag for tag, _ in reader.tags}
    assert not kinds & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    loads = {"src", "srcset", "xlink:href", "background", "action", "data", "poster", "style"}
    for tag, attributes in reader.tags:
        for name in loads & set(attributes):
            assert name == "style" and "url(" not in str(attributes[name]), (tag, attributes)
        if "href" in attributes:
            assert str(attributes["href"]).startswith("#")
        assert not any(name.startswith("on") for name in attributes)
    assert "http:" not in page and "https:" not in page and "@import" not in page
    assert "url(" not in page and "default-src 'none'" in page
    links = {str(a["href"])[1:] for tag, a in reader.tags if tag == "a"}
    assert links == {str(a["id"]) for tag, a in reader.tags if tag == "section"}


def test_it_shows_what_was_found(page: str, results: Path) -> None:
    text = Reader(page).text
    for cell in read_results(results).cells:
        assert cell.command in text
        assert (f"{cell.pooled.get('ccc', 0):.3f}" if "ccc" in cell.pooled else "") in text
        if "ua" in cell.pooled:
            assert f"{100 * cell.pooled['ua']:.1f}" in text  # type: ignore[operator]
    for words in (
        "emotion · ravdess · official *",
        "Selected on the test part",
        "Not speaker-independent: up to 12 speakers",
        "raw features, mean over frames",
        "first linear layer of the trained probe",
        "Baselines: what needs no trained representation",
        "EmoBox's 6 folds, by speaker",
        "with other protocols: not comparable",
        "white noise 0 dB",
        "Choosing the best layer here would be choosing on the test part",
        "Labels: calm → neutral.",
    ):
        assert words in text, words


def test_groups_do_not_mix(page: str) -> None:
    sections = re.findall(r"<section.*?</section>", page, re.DOTALL)
    starred = [section for section in sections if "Selected on the test part" in section]
    assert len(starred) == 1 and starred[0].count('<tr class="row') == 1
    official = next(s for s in sections if "emotion · ravdess · official</h2>" in s)
    table = official.split("<h3>")[0]
    assert "64.8" in table and "82.4<" not in table  # EmoBox's folds, not the paper's
    assert official.index("82.4") > official.index("with other protocols")
    assert official.index("speaker-only") > official.index("Baselines")


def test_whatever_names_hold_is_text(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>&amp;'
    cell = classification_cell(evil, corpus="emodb", skill=0.5, layer=3)
    cell["corpus"] = cell["command"] = cell["machine"] = evil
    cell["errors"] = {evil: evil}
    text = json.dumps(cell).replace("angry", json.dumps(evil)[1:-1])
    for layer in (3, 4):
        (tmp_path / f"{layer}.json").write_text(text.replace('"layer": 3', f'"layer": {layer}'))
    write_report(tmp_path, tmp_path / "out", formats=("html",))
    page = (tmp_path / "out/report.html").read_text()
    reader = Reader(page)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert evil in reader.text and "<script" not in page


def test_maps_are_of_the_vectors_beside_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, classification_cell("mfcc"), "mfcc")
    [cell] = read_results(tmp_path).cells
    assert map_of(cell) is None
    write_vectors(path.with_suffix(".npz"), json.loads(path.read_text()))
    found = map_of(cell)
    assert found is not None and found.method in ("UMAP", "t-SNE")
    assert [points.shape for points in found.panels.values()] == [(16, 2), (16, 2)]
    assert set(found.labels) <= set(cell.labels)
    monkeypatch.setattr(maps, "LARGEST", 50)
    many = np.random.default_rng(0).normal(size=(120, 3))
    np.savez(path.with_suffix(".npz"), raw=many, labels=np.array(["sad"] * len(many)))
    few = map_of(cell)
    assert few is not None and len(few.labels) == 50 and len(few.panels) == 1


@pytest.mark.parametrize("content", ["pickled", "text", "lengths", "infinite"])
def test_bad_vectors_are_listed(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, classification_cell("mfcc"), "mfcc").with_suffix(".npz")
    labels = np.array(["sad"] * 20)
    if content == "pickled":
        np.savez(path, raw=np.array([{}] * 20, dtype=object), labels=labels)
    elif content == "lengths":
        np.savez(path, raw=np.ones((3, 4)), labels=labels)
    elif content == "infinite":
        np.savez(path, raw=np.full((20, 4), np.inf), labels=labels)
    else:
        path.write_text("nothing")
    assert call("report", tmp_path, "--out", tmp_path / "out", "--format", "html") == 3
    assert "mfcc.npz: it holds no vectors to map" in capsys.readouterr().err
    page = (tmp_path / "out/report.html").read_text()
    assert "mfcc.npz" in page and "emotion2vec benchmark mfcc" in page


def test_a_forest_places_its_bars() -> None:
    bars = [Bar("a", 0.5, (0.4, 0.6), False), Bar("b", None, None, True)]
    text = forest(bars, "ua", 0.25)
    assert "left:50.00%;width:50.00%" in text  # of an axis from 20 to 60
    assert text.count("chance") == 2 and 'style="left:75.00%"' in text
    assert text.count("dot") == 1 and "–" in text


def test_curves_leave_out_what_is_not_there() -> None:
    curves = {"a<b": [(0.5, (0.4, 0.6)), None], "c": [None, (0.2, None)]}
    text = line_chart(["0", "1"], curves, "ua", "x")
    assert text.count("<circle") == 2 and text.count("<polyline") == 2
    assert "<polyline" not in line_chart(["0", "1"], curves, "ua", "x", joined=False)
    assert "a&lt;b: 50.0" in text
    assert "<td>–</td>" in heat(["x"], {"row": [None]})
