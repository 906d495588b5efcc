"""Whole runs of fine-tuning, on synthetic speech."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, call
from safetensors.torch import load_file

from emotion2vec import Emotion2vec, Emotion2vecConfig, Recognizer
from emotion2vec.finetuning.card import Facts
from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.finetuning.run import finetune
from emotion2vec.jsonl import read_jsonl, write_jsonl
from emotion2vec.manifest import Record, read_manifest, write_manifest

MOODS = ROOT / "data" / "moods" / "manifest.jsonl"
CONFIG = FinetuneConfig(
    epochs=2, peak_lr=1e-3, head_lr=1e-2, num_workers=0, precision="fp32", batch_clips=8
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder whose log-mel needs no training to be of use."""
    torch.manual_seed(0)
    config = Emotion2vecConfig(
        first_layer="logmel", conv_channels=(40, 48), conv_kernels=(400, 1), conv_strides=(320, 1),
        embed_dim=48, num_heads=4, prenet_depth=1, depth=1, position_depth=2, position_width=18,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("encoder")
    Emotion2vec(config).save_pretrained(folder)
    return folder


def clips(per_speaker: int = 2, speakers: int = 6) -> list[Record]:
    """Some clips of each mood of some speakers."""
    taken: dict[tuple[str | None, str | None], int] = {}
    kept = []
    for record in read_manifest(MOODS):
        place = (record.speaker, record.emotion)
        names = sorted({speaker for speaker, _ in taken} | {record.speaker})  # type: ignore[type-var]
        if len(names) <= speakers and taken.get(place, 0) < per_speaker:
            taken[place] = taken.get(place, 0) + 1
            kept.append(record)
    return kept


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_run_leaves_a_model_with_its_card(encoder: Path, tmp_path: Path) -> None:
    records = clips(4)
    facts = Facts(licence="CC0", weights_licence="mit", command="emotion2vec finetune ...")
    config = replace(CONFIG, epochs=4, standardize=True)
    result = finetune(encoder, records, tmp_path / "run", config, facts=facts)
    assert result.outputs.labels == ("angry", "happy", "neutral", "sad")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "config.toml", "final", "run.json", "scores.json", "tensorboard"
    ]  # fmt: skip
    found = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert found["speakers"] == 1 and "none of its speakers trains" in found["how"]
    assert found["scores"]["ua"] > 0.3  # four moods
    card = (tmp_path / "run" / "final" / "README.md").read_text()
    for text in ("license: mit", "CC0", "emotion2vec finetune ...", "Expected calibration error"):
        assert text in card
    assert f"| UA | {100 * found['scores']['ua']:.1f} |" in card
    recognizer = Recognizer.from_pretrained(tmp_path / "run" / "final")
    answer = recognizer(records[0].path)
    assert set(answer.scores) == set(result.outputs.labels)


def test_it_loads_in_transformers_and_answers_alike(encoder: Path, tmp_path: Path) -> None:
    from transformers import pipeline

    import emotion2vec.hf  # noqa: F401

    records = clips(2)
    result = finetune(encoder, records, tmp_path / "run", CONFIG)
    pipe = pipeline("audio-classification", model=str(result.model), top_k=None)
    ours = Recognizer.from_pretrained(result.model)(records[0].path)
    theirs = {row["label"]: row["score"] for row in pipe(records[0].load())}
    assert theirs == pytest.approx(dict(ours.scores), abs=1e-5)


def test_folds_are_tested_and_all_recordings_train(encoder: Path, tmp_path: Path) -> None:
    records = clips(2)
    speakers = sorted({r.speaker for r in records})
    parts = [speakers[:3], speakers[3:]]
    folds = [
        {
            "train": [r.key for r in records if r.speaker not in part],
            "test": [r.key for r in records if r.speaker in part],
        }
        for part in parts
    ]
    (tmp_path / "folds.json").write_text(json.dumps({"two": {"folds": folds}}))
    config = replace(CONFIG, validation="none", unknown_share=0.2)
    result = finetune(encoder, records, tmp_path / "run", config, folds=tmp_path / "folds.json")
    assert result.found["clips"] == len(records) and result.found["speakers"] == 6
    assert "nothing is chosen, all train 2 epochs" in result.found["how"]
    assert result.outputs.labels[-1] == "unknown"
    rows = [
        r for n in (1, 2) for r in list(read_jsonl(tmp_path / "run" / "folds" / f"{n}.jsonl"))[1:]
    ]
    assert sorted(r["key"] for r in rows) == sorted(r.key for r in records)
    right = np.mean([row["truth"] == row["label"] for row in rows])
    assert result.found["scores"]["wa"] == pytest.approx(right)
    # The temperature is in the weights: logits of one fold's model are not, those of the final are.
    assert result.found["temperature"] != 1


def test_each_fold_may_have_its_own_encoder(encoder: Path, tmp_path: Path) -> None:
    records = clips(1, 4)
    for name in ("1", "2", "all"):
        (tmp_path / f"enc-{name}").symlink_to(encoder)
    speakers = sorted({r.speaker for r in records})
    folds = [
        {
            "train": [r.key for r in records if r.speaker not in part],
            "test": [r.key for r in records if r.speaker in part],
        }
        for part in (speakers[:2], speakers[2:])
    ]
    (tmp_path / "folds.json").write_text(json.dumps({"two": {"folds": folds}}))
    config = replace(CONFIG, validation="none", epochs=1)
    options: dict[str, Any] = {"folds": tmp_path / "folds.json"}
    finetune(f"{tmp_path}/enc-{{fold}}", records, tmp_path / "run", config, **options)
    (tmp_path / "enc-2").unlink()
    with pytest.raises(FileNotFoundError, match="enc-2"):
        finetune(f"{tmp_path}/enc-{{fold}}", records, tmp_path / "again", config, **options)


@pytest.mark.parametrize("classes", [True, False])
def test_values_are_learned_with_and_without_classes(
    encoder: Path, tmp_path: Path, classes: bool
) -> None:
    arousal = {"angry": "0.9", "happy": "0.7", "neutral": "0.3", "sad": "0.1"}
    records = [
        replace(r, labels={**r.labels, "arousal": arousal[str(r.emotion)]}) for r in clips(3)
    ]
    config = replace(CONFIG, dimensions=("arousal",), classes=classes, epochs=3)
    result = finetune(encoder, records, tmp_path / "run", config)
    assert -1 <= result.found["scores"]["ccc"] <= 1
    assert ("ua" in result.found["scores"]) == classes
    answer = Recognizer.from_pretrained(result.model)(records[0].path)
    assert list(answer.dimensions) == ["arousal"] and (answer.label is None) != classes
    assert "arousal" in (result.model / "README.md").read_text()


def test_a_teacher_is_distilled(encoder: Path, tmp_path: Path) -> None:
    names = ("angry", "happy", "neutral", "sad")
    soft = [
        replace(
            r,
            labels={},
            scores={name: 0.7 if name == r.emotion else 0.1 for name in names},
            weight=0.5,
        )
        for r in clips(3)
    ]
    result = finetune(encoder, soft, tmp_path / "run", CONFIG)
    assert result.outputs.labels == names
    assert result.found["clips"] == 12  # likeliest classes of the teacher are the truth
    assert "have a teacher's scores" in (result.model / "README.md").read_text()


@pytest.mark.parametrize("scope", ["partial", "head", "lora"])
def test_scopes_leave_the_rest_as_it_was(encoder: Path, tmp_path: Path, scope: str) -> None:
    config = replace(CONFIG, scope=scope, top_blocks=1, epochs=1)
    result = finetune(encoder, clips(2, 4), tmp_path / "run", config)
    before, after = tensors(encoder), tensors(result.model)
    changed = {n for n, v in before.items() if not torch.equal(v, after[f"encoder.{n}"])}
    assert set(after) == {
        *(f"encoder.{name}" for name in before), "classifier.weight", "classifier.bias"
    }  # fmt: skip
    if scope == "head":
        assert changed == set()
    elif scope == "partial":
        assert changed and all(name.startswith("context.blocks.1.") for name in changed)
    else:
        assert changed and all(name.split(".")[-2] in ("qkv", "projection") for name in changed)


def test_early_stopping_and_data_given_for_validation_and_test(
    encoder: Path, tmp_path: Path
) -> None:
    records = clips(2)
    speakers = sorted({r.speaker for r in records})
    part = {s: [r for r in records if r.speaker == s] for s in speakers}
    train = [r for s in speakers[:4] for r in part[s]]
    config = replace(CONFIG, epochs=12, patience=1)
    result = finetune(
        encoder, train, tmp_path / "run", config,
        valid=part[speakers[4]], test=part[speakers[5]],
    )  # fmt: skip
    assert result.found["clips"] == 8 and result.found["speakers"] == 1
    assert "validation given" in result.found["how"]
    epoch = int(result.found["how"].split("its epoch, ")[1].split(" ")[0])
    assert 1 <= epoch < 12
    assert result.found["how"].startswith(
        "a test part of its own, on which nothing was chosen; none"
    )


def test_broken_recordings_are_told_and_the_rest_trains(
    encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = clips(2)
    lost = replace(records[0], key="lost", path=str(tmp_path / "lost.wav"))
    (tmp_path / "torn.wav").write_bytes(b"RIFF0000WAVE")
    torn = replace(records[0], key="torn", path=str(tmp_path / "torn.wav"))
    odd = replace(read_manifest(MOODS)[-1], key="odd", labels={})
    data = tmp_path / "data.jsonl"
    write_manifest([*records, lost, torn, odd], data)
    code = call(
        "finetune", "--model", str(encoder), "--data", str(data), "--out", str(tmp_path / "run"),
        "--epochs", "1", "--set", "num_workers=0", "--quiet", "--format", "json",
    )  # fmt: skip
    printed = capsys.readouterr()
    assert code == 3, printed.err
    assert {row["key"] for row in read_jsonl(tmp_path / "run" / "skipped.jsonl")} == {
        "lost", "torn", "odd"
    }  # fmt: skip
    assert json.loads(printed.out)["scores"]["ua"] >= 0
    assert "left out: lost:" in printed.err
    card = (tmp_path / "run" / "final" / "README.md").read_text()
    assert f"emotion2vec finetune --model {encoder} --data {data} --out" in card


def test_a_killed_run_ends_as_an_uninterrupted_one(encoder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    write_manifest(clips(3), data)
    words = [
        sys.executable, "-m", "emotion2vec", "finetune", "--model", str(encoder), "--data",
        str(data), "--epochs", "6", "--quiet", "--set", "num_workers=0", "--set", "precision=fp32",
        "--set", "mixup=0.5", "--set", "noise_share=0.5", "--set", "batch_clips=8",
        "--set", "peak_lr=1e-3",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*words, "--out", str(tmp_path / "whole")], check=True, env=environment)
    killed = tmp_path / "killed"
    process = subprocess.Popen([*words, "--out", str(killed)], env=environment)
    deadline = time.monotonic() + 240
    while not list(killed.glob("checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "final").exists()
    refused = subprocess.run(
        [*words, "--out", str(killed)], env=environment, capture_output=True, text=True
    )
    assert refused.returncode == 1 and "--resume goes on with it" in refused.stderr
    subprocess.run([*words, "--out", str(killed), "--resume"], check=True, env=environment)
    one, other = (tensors(tmp_path / name / "final") for name in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_run_s_folder_is_not_touched(encoder: Path, tmp_path: Path) -> None:
    records = clips(1, 4)
    finetune(encoder, records, tmp_path / "run", replace(CONFIG, epochs=1))
    before = tensors(tmp_path / "run" / "final")
    with pytest.raises(ValueError, match="holds a run with another config"):
        finetune(encoder, records, tmp_path / "run", replace(CONFIG, epochs=2), resume=True)
    with pytest.raises(ValueError, match="holds a run with another data"):
        finetune(encoder, records[1:], tmp_path / "run", replace(CONFIG, epochs=1), resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is not empty and no run"):
        finetune(encoder, records, tmp_path / "full", CONFIG)
    assert all(torch.equal(v, before[n]) for n, v in tensors(tmp_path / "run" / "final").items())


def test_two_processes_train_one_model(encoder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    write_manifest(clips(2), data)
    words = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        "-m", "emotion2vec", "finetune", "--model", str(encoder), "--data", str(data),
        "--out", str(tmp_path / "run"), "--epochs", "2", "--quiet", "--set", "num_workers=0",
        "--set", "batch_clips=4", "--format", "json",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["speakers"] == 1  # printed once
    Recognizer.from_pretrained(tmp_path / "run" / "final")


def test_rows_of_recognize_are_a_teacher_s_list(encoder: Path, tmp_path: Path) -> None:
    """What `recognize --out` writes can be fine-tuned on as it is."""
    records = clips(2)
    teacher = finetune(encoder, records, tmp_path / "teacher", CONFIG).model
    answers = Recognizer.from_pretrained(teacher)(list(records))
    write_jsonl((answer.to_dict() for answer in answers), tmp_path / "heard.jsonl")
    heard = read_manifest(tmp_path / "heard.jsonl")
    assert heard[0].scores == pytest.approx(dict(answers[0].scores))
    result = finetune(encoder, heard, tmp_path / "student", CONFIG)
    assert result.outputs.labels == ("angry", "happy", "neutral", "sad")
