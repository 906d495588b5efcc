"""Trained on one corpus, tested on another: classes, maps, pairs, files."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from conftest import call, write_tone

from emotion2vec.backbones import load_backbone
from emotion2vec.benchmark import transfer as module
from emotion2vec.benchmark.transfer import share_classes, transfer
from emotion2vec.cli import app
from emotion2vec.manifest import Record, write_manifest
from emotion2vec.probing.heads import HeadConfig

HEAD = HeadConfig("linear", epochs=6, batch_size=16)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMOTION2VEC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def make_corpus(
    folder: Path, pitches: dict[str, float], speakers: int = 4, takes: int = 3
) -> list[Record]:
    """Tones: a pitch for each emotion; the same keys in every corpus."""
    return [
        Record(
            f"{speaker}{emotion}{take}",
            str(write_tone(folder / f"{speaker}{emotion}{take}.wav", 0.4, pitch=pitch + 9 * take)),
            speaker=f"s{speaker}",
            labels={"emotion": emotion},
        )
        for speaker in range(speakers)
        for emotion, pitch in pitches.items()
        for take in range(takes)
    ]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Record]]:
    """Two that agree, the second with a class of its own, and one that says the opposite."""
    folder = tmp_path_factory.mktemp("corpora")
    usual = {"excited": 2400.0, "sad": 300.0}
    return {
        "one": make_corpus(folder / "one", usual),
        "two": make_corpus(
            folder / "two", {"happy": 2500.0, "sad": 280.0, "bored": 900.0}, takes=4
        ),
        "odd": make_corpus(folder / "odd", {"happy": 310.0, "sad": 2350.0}, speakers=3),
    }


def test_every_pair_is_tested(corpora: dict[str, list[Record]], tmp_path: Path) -> None:
    found = transfer(corpora, load_backbone("logmel"), tmp_path, num_folds=4, head=HEAD)
    cells = {(row["train"], row["test"]): row for row in found["matrix"]}
    assert len(cells) == len(found["matrix"]) == 9
    assert found["labels"] == ["happy", "sad"] and found["label_mapping"] == {"excited": "happy"}
    for name, clips in (("one", 24), ("two", 32), ("odd", 18)):
        assert {row["clips"] for row in found["matrix"] if row["test"] == name} == {clips}
        assert cells[name, name]["scores"]["ua"] == 1.0
        assert cells[name, name]["protocol"].startswith(f"{min(4, 3 + (name != 'odd'))} folds by")
    assert cells["one", "two"]["scores"]["ua"] == cells["two", "one"]["scores"]["ua"] == 1.0
    for pair in (("one", "odd"), ("odd", "one"), ("two", "odd"), ("odd", "two")):
        assert cells[pair]["scores"]["ua"] == 0.0  # it learned what is false there
    assert cells["one", "two"]["protocol"] == (
        "trained on all of one; validation is a fifth of the training speakers with seed 0"
    )
    assert json.loads((tmp_path / "transfer" / "logmel.linear.json").read_text()) == found


def test_other_folds_of_the_diagonal_are_run_again(
    corpora: dict[str, list[Record]], tmp_path: Path
) -> None:
    two = {name: corpora[name] for name in ("one", "two")}
    transfer(two, load_backbone("logmel"), tmp_path, num_folds=4, head=HEAD)
    found = transfer(two, load_backbone("logmel"), tmp_path, num_folds=3, head=HEAD)
    cells = {(row["train"], row["test"]): row for row in found["matrix"]}
    assert len(cells) == len(found["matrix"]) == 4
    assert all(cells[name, name]["protocol"].startswith("3 folds by") for name in two)


def test_a_run_goes_on(
    corpora: dict[str, list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {name: corpora[name] for name in ("one", "odd")}
    backbone = load_backbone("mfcc")
    whole = transfer(two, backbone, tmp_path / "whole", num_folds=3, head=HEAD)
    path = tmp_path / "cut" / "transfer" / "mfcc.linear.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(whole | {"matrix": whole["matrix"][:2]}))
    assert transfer(two, backbone, tmp_path / "cut", num_folds=3, head=HEAD) == whole
    monkeypatch.setattr(module, "fit_fold", None)  # nothing is trained again
    assert transfer(two, backbone, tmp_path / "cut", num_folds=3, head=HEAD) == whole
    with pytest.raises(ValueError, match="of another run: its head is"):
        transfer(two, backbone, tmp_path / "cut", num_folds=3, head=HeadConfig("linear", epochs=7))


def test_one_head_is_trained_for_all_other_corpora(
    corpora: dict[str, list[Record]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    real = module.fit_fold

    def fit(*arguments: object, **options: object) -> object:
        trained.append(arguments[0])
        return real(*arguments, **options)

    monkeypatch.setattr(module, "fit_fold", fit)
    transfer(corpora, load_backbone("logmel"), tmp_path, num_folds=3, head=HEAD)
    assert len(trained) == 3 * (3 + 1)


def label(*emotions: str) -> list[Record]:
    return [Record(str(i), "a.wav", labels={"emotion": e}) for i, e in enumerate(emotions)]


def test_labels_are_mapped_and_cut_to_what_all_have() -> None:
    many = label("calm", "happy", "sad", "fearful")
    few = label("neutral", "excited", "sad", "angry")
    assert share_classes({"a": many, "b": few}).classes == ["happy", "sad"]
    mapped = share_classes({"a": many, "b": few}, {"calm": "neutral", "excited": "excited"})
    assert mapped.classes == ["neutral", "sad"]
    assert [r.key for r in mapped.corpora["a"]] == ["a/0", "a/2"]
    bare = [Record("x", "a.wav"), *few]
    assert len(share_classes({"a": many, "b": bare}).corpora["b"]) == 2
    with pytest.raises(ValueError, match=r"share 1 classes \(a: happy, sad; b: angry, happy\)"):
        share_classes({"a": label("sad", "happy"), "b": label("angry", "happy")})
    with pytest.raises(ValueError, match="1 corpora are given"):
        share_classes({"a": many})


def test_without_speakers_the_diagonal_is_random_and_says_so(
    corpora: dict[str, list[Record]], tmp_path: Path
) -> None:
    bare = [Record(r.key, r.path, labels=r.labels) for r in corpora["odd"]]
    pair = {"one": corpora["one"], "odd": bare}
    found = transfer(pair, load_backbone("logmel"), tmp_path, num_folds=3, head=HEAD)
    protocols = {(row["train"], row["test"]): row["protocol"] for row in found["matrix"]}
    assert protocols["odd", "odd"].startswith("3 random folds of clips with seed 0")
    assert "a fifth of the training clips" in protocols["odd", "one"]


def test_the_command_reads_corpora_prints_and_draws(
    corpora: dict[str, list[Record]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_text("Dear diary")
    lost = Record("lost", str(broken), speaker="s0", labels={"emotion": "sad"})
    write_manifest([*corpora["one"], lost], tmp_path / "one.jsonl")
    write_manifest(corpora["two"], tmp_path / "two.jsonl")
    words = ["transfer", "logmel", "--corpora", f"mine={tmp_path / 'one.jsonl'}",
             f"theirs={tmp_path / 'two.jsonl'}", "--map", "sad=low", "--num-folds", "2",
             "--epochs", "3", "--head", "linear", "--quiet", "--out", tmp_path / "out"]  # fmt: skip
    assert call(*words) == 3
    printed = capsys.readouterr()
    assert "left out: mine/lost: " in printed.err
    lines = printed.out.splitlines()
    assert "classes happy, low" in lines[0]
    assert [line.split()[0] for line in lines[2:4]] == ["mine", "theirs"]
    assert (tmp_path / "out" / "transfer" / "matrix.png").stat().st_size > 5000
    values = json.loads((tmp_path / "out" / "transfer" / "logmel.linear.json").read_text())
    app.parse_args(shlex.split(values["command"])[1:], exit_on_error=False, print_error=False)
    assert call(*words, "--format", "json") == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["train"], row["test"]) for row in rows][1] == ("mine", "theirs")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--corpora", "one.jsonl"], "--corpora has 'one.jsonl'; write NAME=VALUE"),
        (["--corpora", "a=x.jsonl", "a=y.jsonl"], "--corpora has a name twice"),
        (["--corpora", "a=none.jsonl", "b=y.jsonl"], "the manifest none.jsonl is not a file"),
    ],
)
def test_corpora_that_are_none(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("transfer", "logmel", *words, "--out", tmp_path) == 1
    assert message in capsys.readouterr().err
