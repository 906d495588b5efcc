"""The harness: cells are made, read again, marked and failed one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, call, write_tone

from emotion2vec import Emotion2vecConfig
from emotion2vec.backbones import random_encoder
from emotion2vec.benchmark.cells import result_of
from emotion2vec.benchmark.run import Given, Plan, run_benchmark
from emotion2vec.benchmark.tables import columns, row_of, tables
from emotion2vec.manifest import Record, read_manifest, write_manifest
from emotion2vec.probing.protocols import SplitOptions

MOODS = {"happy": 400.0, "sad": 200.0}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMOTION2VEC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Four speakers; the pitch is the mood, the loudest frames are aroused."""
    records = []
    for speaker in range(4):
        for i, (mood, pitch) in enumerate([*MOODS.items()] * 3):
            key = f"s{speaker}-{i}"
            audio = write_tone(tmp_path / "clips" / f"{key}.wav", 0.4, pitch=pitch + 10 * i)
            labels = {
                "emotion": mood, "session": str(speaker // 2), "arousal": str(pitch + i),
                "dialogue": str(speaker), "turn": str(i),
            }  # fmt: skip
            records.append(Record(key, str(audio), speaker=f"s{speaker}", labels=labels))
    write_manifest(records, tmp_path / "corpus.jsonl")
    return tmp_path / "corpus.jsonl"


@pytest.fixture
def model(tmp_path: Path) -> str:
    random_encoder(Emotion2vecConfig(**TINY)).save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def plan_of(corpus: Path, backbones: Sequence[str], **changes: Any) -> Plan:
    given = {"tones": Given(lambda: read_manifest(corpus), ("All of it is tones.",))}
    settings = {"protocols": ["speaker-out"], "seeds": 2, "epochs": 3} | changes
    return Plan(backbones, given, corpus.parent / "results", **settings)


def test_every_cell_is_a_file_with_all_that_was_found(corpus: Path, model: str) -> None:
    plan = plan_of(corpus, [model, "logmel"])
    cells = list(run_benchmark(plan))
    names = [cell["backbone"]["name"] for cell in cells]
    assert names == [model, "logmel", "constant", "speaker-only", "trivial"]
    folder = plan.out / "emotion" / "tones" / "speaker-out"
    files = {json.loads(f.read_text())["backbone"]["name"]: f for f in folder.glob("*.json")}
    assert sorted(files) == sorted(names)
    of_model, of_logmel, constant = cells[:3]
    assert of_model["head"]["name"] == "linear" and of_logmel["head"]["name"] == "logistic"
    assert [c["backbone"]["kind"] for c in cells[:3]] == ["model", "hand-made", "baseline"]
    assert of_logmel["scores"]["pooled"]["wa"] == 1.0
    assert constant["scores"]["pooled"]["ua"] == 0.5
    assert constant["scores"]["recall"] == {"happy": 1.0, "sad": 0.0}
    assert np.sum(of_model["confusion"]) == 2 * 24  # both seeds
    assert of_model["protocol"]["shared_speakers"] == [0] * 4
    assert "best WA on validation" in of_model["protocol"]["selection"]
    assert of_model["traps"] == ["All of it is tones."]
    maps = np.load(files[model].with_suffix(".npz"))
    assert maps["raw"].shape == (6, TINY["embed_dim"]) and maps["first_layer"].shape == (6, 256)
    assert maps["labels"].tolist() == ["happy", "sad"] * 3
    assert json.loads(files[model].read_text()) == json.loads(json.dumps(of_model))


def test_backbones_and_heads_of_every_kind_are_scored(corpus: Path, model: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.WavLMConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        conv_dim=[16] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    config.save_pretrained(corpus.parent / "wavlm")
    names = [f"random:{model}", f"hf-random:{corpus.parent / 'wavlm'}", "mfcc", "afcn"]
    plan = plan_of(corpus, names, seeds=1, hidden_dim=8)
    cells = list(run_benchmark(plan))[: len(names)]
    assert [c["head"]["name"] for c in cells] == ["linear", "linear", "logistic", "afcn"]
    for head in ("attention", "layers", "cnn"):
        (found, *_) = run_benchmark(plan_of(corpus, [model], head=head, seeds=1, hidden_dim=8))
        cells.append(found)
    for cell in cells:
        assert "error" not in cell and len(cell["truth"]) == 24, cell.get("error")


def test_scores_follow_from_the_answers_in_the_file(corpus: Path, model: str) -> None:
    for task in ("emotion", "dimensions"):
        for cell in run_benchmark(plan_of(corpus, [model], tasks=[task])):
            again = result_of(json.loads(json.dumps(cell)))
            assert again.mean() == pytest.approx(cell["scores"]["pooled"])
            assert [*again.interval()] == pytest.approx(
                cell["scores"]["interval_95"][again.score_names[0]]
            )


def test_what_is_there_is_read_and_what_changed_is_made_again(corpus: Path, model: str) -> None:
    def stamps(**changes: Any) -> list[str]:
        list(run_benchmark(plan_of(corpus, [model], baselines=False, **changes)))
        (file,) = (corpus.parent / "results").rglob("*.json")
        seen = json.loads(file.read_text())
        file.write_text(json.dumps(seen | {"date": "marked"}))
        return [seen["date"], str(len(seen["runs"]))]

    assert stamps() != ["marked", "8"]
    assert stamps() == ["marked", "8"]
    assert stamps(seeds=1) != ["marked", "4"]  # other settings
    records = read_manifest(corpus)
    write_manifest(records[:-1], corpus)  # another corpus
    assert stamps(seeds=1)[0] != "marked"
    random_encoder(Emotion2vecConfig(**TINY), seed=5).save_pretrained(model)  # other weights
    assert stamps(seeds=1)[0] != "marked"
    (file,) = (corpus.parent / "results").rglob("*.json")
    file.write_text(file.read_text()[:100])  # cut short
    assert stamps(seeds=1)[0] != "marked"


def test_a_failed_cell_is_a_row_and_the_rest_goes_on(corpus: Path) -> None:
    Path(read_manifest(corpus)[0].path).write_bytes(b"no sound")
    plan = plan_of(corpus, ["none/such", "logmel"], protocols=["official", "speaker-out"])
    cells = list(run_benchmark(plan))
    errors = [cell["error"] for cell in cells if "error" in cell]
    assert len(cells) == 10 and len(errors) == 6  # official fails for all, the model in both
    assert "neither the label 'split' nor 'fold'" in " ".join(errors)
    (good,) = (c for c in cells if c["backbone"]["name"] == "logmel" and "error" not in c)
    assert [*good["errors"]] == ["s0-0"] and "s0-0" not in good["truth"]
    text = tables(cells)
    assert "failed: none/such" in text and "logmel: 1 recordings left out" in text
    rows = [row_of(cell) for cell in cells]
    assert sum(bool(row["error"]) for row in rows) == 6
    assert columns(rows)[-1] == "error" and {"wa", "low", "high"} <= set(columns(rows))
    assert not list(plan.out.rglob("official/*"))


def test_the_papers_star_is_on_every_row_and_apart_from_honest_cells(corpus: Path) -> None:
    honest = plan_of(corpus, ["logmel"], head="linear", baselines=False)
    starred = plan_of(corpus, ["logmel"], head="linear", baselines=False, paper_star=True)
    cells = [*run_benchmark(honest), *run_benchmark(starred)]
    assert [cell["protocol"]["starred"] for cell in cells] == [False, True]
    assert len(list(honest.out.rglob("*.json"))) == 2
    plain, marked = tables(cells).split("\n\n")
    assert "*" not in plain and "logmel *" in marked and "no estimate of new speech" in marked


def test_layers_are_cells_and_equal_those_that_are_run_alone(corpus: Path, model: str) -> None:
    plan = plan_of(corpus, [model, "logmel"], layers="all", baselines=False)
    cells = list(run_benchmark(plan))
    assert [c["backbone"]["layer"] for c in cells] == [0, 1, 2, 3, None]
    alone = plan_of(corpus, [model], layers=[2], baselines=False)
    (cell,) = run_benchmark(alone)
    assert cell["runs"] == cells[2]["runs"]
    (failed,) = run_benchmark(plan_of(corpus, [model], layers=[9], baselines=False))
    assert "has no layer 9" in failed["error"]


def test_other_tasks_use_their_heads_and_scores(corpus: Path, model: str) -> None:
    plan = plan_of(
        corpus, [model], tasks=["dimensions", "conversation"], protocols=["session-out"],
        options=SplitOptions(validation="clips"),
    )  # fmt: skip
    cells = [cell for cell in run_benchmark(plan) if cell["backbone"]["name"] == model]
    dimensions, conversation = cells
    assert dimensions["labels"] == ["arousal"] and "confusion" not in dimensions
    assert {"ccc", "ccc_arousal"} == set(dimensions["scores"]["pooled"])
    assert "best CCC" in dimensions["protocol"]["selection"]
    assert conversation["head"]["name"] == "gru"
    assert len(conversation["truth"]) == 20  # without the first turn of four dialogues
    assert (plan.out / "dimensions" / "tones" / "session-out-clips").is_dir()
    assert "CCC" in tables(cells)


def test_without_a_protocol_each_corpus_has_its_own(corpus: Path) -> None:
    records = read_manifest(corpus)
    folded = [replace(r, labels={**r.labels, "fold": str(r.speaker)}) for r in records]
    nobodies = [replace(r, speaker=None) for r in records]
    given = {
        "known": Given(lambda: records, (), "speaker-out"),
        "folded": Given(lambda: folded, (), "speaker-out"),
        "own": Given(
            lambda: records[:18] + [replace(r, key=r.key + "b", speaker=r.key) for r in records]
        ),
        "nobodies": Given(lambda: nobodies),
    }
    plan = Plan(["constant"], given, corpus.parent / "out", baselines=False)
    found = {cell["corpus"]: cell["protocol"]["name"] for cell in run_benchmark(plan)}
    assert found == {
        "known": "speaker-out", "folded": "official", "own": "speaker-folds", "nobodies": "random",
    }  # fmt: skip


def test_plans_that_cannot_be_run_are_refused(corpus: Path) -> None:
    for changes in ({"tasks": ["mood"]}, {"seeds": 0}, {"tasks": []}):
        with pytest.raises(ValueError, match="choose from emotion, sentiment"):
            list(run_benchmark(plan_of(corpus, ["logmel"], **changes)))
    for changes, message in (
        ({"protocols": ["lopo"]}, "the protocol is 'lopo'; choose one of official, "),
        ({"head": "svm"}, "the head is 'svm'; choose one of linear, "),
        ({"options": SplitOptions("dev")}, "validation is 'dev'; choose one of speakers, "),
    ):
        with pytest.raises(ValueError, match=message):
            list(run_benchmark(plan_of(corpus, ["logmel"], **changes)))
    with pytest.raises(ValueError, match="takes all layers at once"):
        list(run_benchmark(plan_of(corpus, ["logmel"], layers="all", head="layers")))


def test_the_command_prints_and_its_cells_say_how_to_make_them_again(
    corpus: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = corpus.parent / "out"
    words = ["benchmark", model, "--corpora", f"mine={corpus}", "--protocol", "speaker-out"]
    words += ["--seeds", "1", "--epochs", "2", "--hidden-dim", "8", "--out", str(out), "--quiet"]
    assert call(*words) == 0
    text = capsys.readouterr().out
    assert "emotion, mine, speaker-out" in text and "leave one speaker out (4 folds)" in text
    files = sorted(out.rglob("*.json"))
    assert len(files) == 4
    for file in files:
        cell = json.loads(file.read_text())
        file.unlink()
        assert call(*cell["command"].split()[1:], "--quiet", "--format", "json") == 0
        (row,) = map(json.loads, capsys.readouterr().out.splitlines())
        again = json.loads(file.read_text())
        assert again["scores"] == cell["scores"] and row["wa"] == cell["scores"]["pooled"]["wa"]
        assert again["command"] == cell["command"]
    assert call(*words, "--protocol", "official", "--format", "csv") == 3
    assert capsys.readouterr().out.count("neither the label") == 4
    for wrong in (["nameless"], [f"a={corpus}", f"a={corpus}"]):
        assert call("benchmark", "logmel", "--corpora", *wrong, "--out", str(out)) == 1
