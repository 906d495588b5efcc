"""`emotion2vec report`: what is read, what may stand side by side, Markdown, CSV, LaTeX."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import call
from report_cells import (
    classification_cell,
    regression_cell,
    robustness_file,
    starred_cell,
    transfer_file,
    write,
    write_results,
)

from emotion2vec.metrics import classification_scores
from emotion2vec.reporting.cells import Results, read_result, read_results
from emotion2vec.reporting.lines import row_line, transfer_table
from emotion2vec.reporting.published_scores import PUBLISHED, Setting, same_protocol
from emotion2vec.reporting.report import write_report
from emotion2vec.reporting.tables import Group, differences, group_cells
from emotion2vec.reporting.writers import cells_csv, latex, markdown, robustness_csv, transfer_csv


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the benchmark leaves it."""
    return write_results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def read(results: Path) -> Results:
    """What that folder holds."""
    return read_results(results)


@pytest.fixture(scope="module")
def groups(read: Results) -> dict[str, Group]:
    """Its groups, by title."""
    return {group.title: group for group in group_cells(read.cells)}


OFFICIAL = "emotion · ravdess · official"


def cells_of(tmp_path: Path, *cells: dict[str, Any]) -> list[Group]:
    """The groups of some cells."""
    for i, cell in enumerate(cells):
        write(tmp_path, cell, f"cell{i}")
    return group_cells(read_results(tmp_path).cells)


def test_only_what_may_be_compared_stands_together(groups: dict[str, Group]) -> None:
    assert set(groups) == {
        *(f"emotion · {c} · {p}" for c in ("ravdess", "emodb") for p in ("official", "random")),
        "emotion · ravdess · official *",
        "dimensions · ravdess · official",
    }
    for group in groups.values():
        of = {(c.task, c.corpus, c.protocol["name"], c.starred) for c in group.cells}
        assert len(of) == 1
    names = [row.name for row in groups[OFFICIAL].rows]
    assert names[0] == "emotion2vec-base" and names[3:] == ["trivial", "speaker-only", "constant"]
    assert [row.is_best for row in groups[OFFICIAL].rows] == [True] + [False] * 5


def test_other_data_or_classes_stand_apart(tmp_path: Path) -> None:
    other = classification_cell("mfcc", corpus_digest="other")
    made = cells_of(tmp_path, classification_cell("mfcc"), other)
    assert [group.title for group in made] == [f"{OFFICIAL} (1)", f"{OFFICIAL} (2)"]
    assert all("a table of their own" in group.warnings[-1] for group in made)


def test_differences_are_in_pairs(tmp_path: Path) -> None:
    cells = [classification_cell("best", skill=0.9), classification_cell("other", skill=0.3)]
    cells.append(classification_cell("same", skill=0.3, seeds=(0,)))
    [group] = cells_of(tmp_path, *cells)
    best, *others = group.rows
    for row in others:
        found = row.differences["ua"]
        wanted = row.cell.pooled["ua"] - best.cell.pooled["ua"]
        assert found.mean == pytest.approx(wanted, abs=1e-9)
        assert found.interval_95[0] < wanted < found.interval_95[1] < 0
        assert row.p_holm["ua"] >= found.p and row.p_holm["ua"] < 0.05
    one = best.cell
    assert differences(one, one)["ua"].p == 1 and differences(one, one)["ua"].mean == 0


def test_one_seed_is_compared_with_every_seed(tmp_path: Path) -> None:
    sure = classification_cell("sure", kind="hand-made", skill=0.5, seeds=(7,))
    [group] = cells_of(tmp_path, classification_cell("best", skill=0.9, seeds=(0, 1, 2)), sure)
    found = group.rows[1].differences["wa"]
    cell = group.rows[1].cell
    answers = {k: v for run in cell.runs for k, v in run["predictions"].items()}
    wa = classification_scores(list(cell.truth.values()), [answers[k] for k in cell.truth]).wa
    assert found.mean == pytest.approx(wa - group.rows[0].cell.pooled["wa"])


def test_values_are_compared_by_ccc(groups: dict[str, Group]) -> None:
    best, other = groups["dimensions · ravdess · official"].rows
    assert best.name == "emotion2vec-base"
    for score in ("ccc", "ccc_arousal"):
        wanted = other.cell.pooled[score] - best.cell.pooled[score]
        assert other.differences[score].mean == pytest.approx(wanted, abs=1e-6)


def test_a_baseline_that_reaches_the_best_is_a_warning(tmp_path: Path) -> None:
    speaker = classification_cell("speaker-only", kind="baseline", skill=0.8)
    [group] = cells_of(tmp_path, classification_cell("model", skill=0.8), speaker)
    assert any("speaker-only cannot be told from the best" in w for w in group.warnings)
    [worse] = cells_of(
        tmp_path / "b",
        classification_cell("model", skill=0.8),
        speaker | classification_cell("speaker-only", kind="baseline", skill=0.1),
    )
    assert not any("cannot be told" in w for w in worse.warnings)


@pytest.mark.parametrize(
    "changes, warning",
    [
        ({"protocol": starred_cell("x")["protocol"]}, "Selected on the test part"),
        ({"errors": {"clip9": "is empty"}}, "1 recordings could not be read"),
        ({"speakers": {f"clip{i:03d}": None for i in range(96)}}, "Speakers are not known"),
        ({"speakers": {f"clip{i:03d}": f"s{i % 4}" for i in range(96)}}, "4 speakers: intervals"),
    ],
)
def test_warnings(changes: dict[str, Any], warning: str, tmp_path: Path) -> None:
    [plain] = cells_of(tmp_path / "plain", classification_cell("mfcc"))
    [group] = cells_of(tmp_path / "changed", classification_cell("mfcc") | changes)
    assert any(warning in found for found in group.warnings)
    assert not any(warning in found for found in plain.warnings)


def test_shared_speakers_and_traps_are_said(groups: dict[str, Group]) -> None:
    shared = "up to 12 speakers of a fold's test part"
    assert any(shared in warning for warning in groups["emotion · ravdess · random"].warnings)
    assert not any(shared in warning for warning in groups[OFFICIAL].warnings)
    assert any("55 dBFS" in trap for trap in groups[OFFICIAL].traps)


def test_layers_stand_in_a_table_of_their_own(groups: dict[str, Group]) -> None:
    [(name, cells)] = groups[OFFICIAL].sweeps.items()
    assert name == "emotion2vec-base, linear"
    assert [cell.subject.layer for cell in cells] == [0, 1, 2, 3, None]
    assert not any("@" in row.name for row in groups[OFFICIAL].rows)


def test_namesakes_are_told_apart(tmp_path: Path) -> None:
    small = {"name": "linear", "epochs": 10}
    cells = [classification_cell("base"), classification_cell("base", head=small)]
    cells.append(classification_cell("base", head=small, layer=1))
    [group] = cells_of(tmp_path, *cells, classification_cell("mfcc"))
    assert {row.name for row in group.rows} == {"base (epochs 100)", "base (epochs 10)", "mfcc"}
    other = classification_cell("base", head={"name": "logistic"})
    [together] = cells_of(tmp_path / "heads", *cells[:2], other)
    assert {row.name for row in together.rows} == {
        "base (head linear, epochs 100)", "base (head linear, epochs 10)", "base (head logistic)",
    }  # fmt: skip
    assert [cell.subject.layer for cell in group.sweeps["base, linear"]] == [1, None]


def test_without_the_output_the_last_layer_stands_for_a_model(tmp_path: Path) -> None:
    cells = [classification_cell("base", layer=i, skill=0.9 - 0.2 * i) for i in range(3)]
    [group] = cells_of(tmp_path, *cells, classification_cell("mix", layer="mean"))
    assert {row.name for row in group.rows} == {"base@2", "mix@mean"}
    assert [cell.subject.layer for cell in group.sweeps["base, linear"]] == [0, 1, 2]


def test_published_scores_need_the_same_protocol(groups: dict[str, Group]) -> None:
    official, random = groups[OFFICIAL], groups["emotion · ravdess · random"]
    assert {row.scores["wa"] for row in official.published} == {0.6484, 0.7222, 0.7587}
    assert {row.scores["wa"] for row in random.published} == {0.3701, 0.8104, 0.8243}
    assert groups["emotion · ravdess · official *"].published == []
    assert not {row.source for row in official.published} & {
        row.source for row in official.elsewhere
    }
    ours = Setting("emotion", "iemocap", "session-out", False, 5, 4)
    assert [row.scores["wa"] for row in same_protocol(ours)] == [0.7179]
    assert [row.scores["wa"] for row in same_protocol(ours._replace(starred=True))] == [0.7448]
    assert same_protocol(ours._replace(folds=4)) == []
    emodb = Setting("emotion", "emodb", "official", False, 5, 7)
    assert len(same_protocol(emodb)) == len(same_protocol(emodb._replace(hours=0.413))) == 3
    assert same_protocol(emodb._replace(hours=0.297)) == []  # a copy cut to 2 s
    assert all(row.setting.protocol == "" for row in PUBLISHED if row.second_hand)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.pop("command"), "command is missing; it must be a text"),
        (lambda c: c.update(format=2), "its format is 2; this version reads 1"),
        (lambda c: c.update(runs={}), "runs is {}; it must be a list"),
        (lambda c: c["scores"].pop("pooled"), "pooled is missing"),
        (lambda c: c["scores"]["pooled"].update(ua=82.0), "scores.pooled.ua is 82.0"),
        (lambda c: c["scores"]["pooled"].pop("ua"), "wanted are ua or ccc"),
        (lambda c: c["runs"].append(7), "runs must be a list of objects"),
        (lambda c: c["runs"][0].pop("fold"), "fold is missing; it must be a number"),
        (lambda c: c.update(versions=[]), r"versions is \[\]; it must be an object"),
        (lambda c: c["scores"].update(recall=[]), r"recall is \[\]"),
        (lambda c: c["confusion"].pop(), "confusion is not 8 rows of 8"),
        (lambda c: c["truth"].pop("clip000"), "answers 'clip000', whose truth is not there"),
        (lambda c: c["backbone"].update(layer={}), "backbone.layer is {}"),
        (lambda c: c["protocol"].pop("starred"), "protocol.starred is not true or false"),
    ],
)
def test_what_a_cell_must_hold(change: Any, message: str, tmp_path: Path) -> None:
    cell = json.loads(json.dumps(classification_cell("mfcc")))
    change(cell)
    path = tmp_path / "cell.json"
    path.write_text(json.dumps(cell))
    with pytest.raises(ValueError, match=message):
        read_result(path)


@pytest.mark.parametrize("values", [robustness_file("mfcc", 0.5), transfer_file("mfcc")])
def test_other_files_are_checked_too(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(values))
    assert read_result(path).subject.backbone == "mfcc"
    entry = values.get("conditions", values.get("matrix"))[0]
    path.write_text(json.dumps(values).replace(json.dumps(entry["scores"]), '{"ua": 7}', 1))
    with pytest.raises(ValueError, match=r"\.ua is 7"):
        read_result(path)


def test_a_bad_file_is_listed_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results", classification_cell("mfcc"), "mfcc")
    broken = tmp_path / "results/emotion/ravdess/official/broken.json"
    broken.write_text('{"format": 1, "task')
    assert call("report", tmp_path / "results", "--out", tmp_path / "out", "--no-maps") == 3
    assert "broken.json: it is no JSON" in capsys.readouterr().err
    for name in ("report.md", "report.html", "report.tex"):
        text = (tmp_path / "out" / name).read_text()
        assert "emotion/ravdess/official/broken.json" in text and str(tmp_path) not in text
    broken.unlink()
    assert call("report", tmp_path / "results", "--out", tmp_path / "out", "--no-maps") == 0


def test_without_results_there_is_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("report", tmp_path, "--out", tmp_path / "out") == 1
    assert "holds no results" in capsys.readouterr().err
    (tmp_path / "a.json").write_text("[]")
    assert call("report", tmp_path, "--out", tmp_path / "out") == 1
    assert "none of 1 files can be used" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_format_alone(results: Path, tmp_path: Path) -> None:
    assert call("report", results, "--out", tmp_path, "--format", "csv") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "results.csv", "robustness.csv", "transfer.csv",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="there is no format 'pdf'"):
        write_report(results, tmp_path, formats=("pdf",))


def rows_of(text: str) -> list[dict[str, str]]:
    """The lines of a csv."""
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_a_line_a_cell(read: Results, groups: dict[str, Group]) -> None:
    rows, cells = rows_of(cells_csv(list(groups.values()))), read.cells
    assert len(rows) == len(cells)
    by_command = {(row["task"], row["starred"], row["command"]): row for row in rows}
    for cell in cells:
        row = by_command[cell.task, str(cell.starred), cell.command]
        for score, value in cell.pooled.items():
            assert float(row[score]) == value
            assert float(row[f"{score}_low"]) == cell.interval(score)[0]  # type: ignore[index]
        assert row["layer"] == ("" if cell.subject.layer is None else str(cell.subject.layer))
    assert {row["starred"] for row in rows} == {"True", "False"}
    pairs = {(row["train"], row["test"]): row["ua"] for row in rows_of(transfer_csv(read.transfer))}
    assert pairs["emodb", "ravdess"] == "0.42"
    noise = [row for row in rows_of(robustness_csv(read.robustness)) if row["level"] == "0"]
    assert [float(row["ua"]) for row in noise] == pytest.approx([0.35, 0.15])
    assert float(noise[0]["ua_change"]) == -0.35 and noise[0]["ua_change_p"] == "0.01"


def test_markdown_keeps_protocols_apart(read: Results, groups: dict[str, Group]) -> None:
    text = markdown(list(groups.values()), read)
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert "emotion · ravdess · official \\*" in sections
    for row in groups[OFFICIAL].rows:
        assert " | ".join(row_line(row, groups[OFFICIAL])[2:4]) in sections[OFFICIAL]
        assert row.cell.command in sections[OFFICIAL]
    ours = sections[OFFICIAL].split("not comparable")[0]
    assert "64.8" in ours and "82.4 | 82.9" not in ours  # EmoBox's folds, not the paper's
    assert "| baseline: constant |" in ours
    starred = groups["emotion · ravdess · official *"]
    assert row_line(starred.rows[0], starred)[2] in sections["emotion · ravdess · official \\*"]
    assert "emotion2vec-base \\* |" in sections["emotion · ravdess · official \\*"]
    assert (
        "white noise 0 dB | 35.0 (31.0 to 39.0) | −35.0 (−40.0 to −30.0) |" in text
        and "| emodb | 42.0" in text
        and "Labels: calm → neutral." in text
    )


def test_markdown_and_latex_show_names_as_they_are(tmp_path: Path) -> None:
    evil = "a|b_c&d%<script>`x`$"
    write(tmp_path, classification_cell(evil, skill=0.5), "evil")
    read = read_results(tmp_path)
    made = group_cells(read.cells)
    text = markdown(made, read)
    assert r"| a\|b\_c&amp;d%&lt;script>\`x\`$ |" in text
    tex = latex(made, read)
    assert r"a|b\_c\&d\%$<$script$>$`x`\$ & linear" in tex
    body = "\n".join(line for line in tex.splitlines() if not line.startswith("%"))
    assert "<script>" not in body


def test_latex_tables_are_whole(read: Results, groups: dict[str, Group]) -> None:
    text = latex(list(groups.values()), read)
    tables = re.findall(r"\\begin\{table\}.*?\\end\{table\}", text, re.DOTALL)
    assert len(tables) == 6 + 1 + 1 + 1  # groups, layers, robustness, transfer
    for table in tables:
        columns = len(re.search(r"\\begin\{tabular\}\{(l r*|lr*)\}", table)[1])  # type: ignore[index]
        lines = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len(lines) > 1
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {columns}
        assert all(f"\\{rule}" in table for rule in ("toprule", "midrule", "bottomrule"))
    starred = [table for table in tables if r"$^\star$" in table]
    assert len(starred) == 1 and "Selected on the test part" in starred[0]
    assert all(ord(character) < 128 for character in "".join(tables))


def test_transfer_has_a_line_a_training_corpus(read: Results) -> None:
    table = transfer_table(read.transfer[0])
    assert table.header[1:] == ["ravdess", "emodb"]
    assert table.lines[1] == ["emodb", "42.0 (37.0 to 47.0)", "83.0 (78.0 to 88.0)"]


def test_a_regression_cell_needs_no_confusion(tmp_path: Path) -> None:
    [group] = cells_of(tmp_path, regression_cell())
    assert group.scores == ["ccc_arousal", "ccc_valence", "ccc_dominance", "ccc"]
    assert re.fullmatch(r"0\.\d{3} \(0\.\d{3} to \d\.\d{3}\)", row_line(group.rows[0], group)[2])
