"""What a kill, an edit or a mix-up may not do to a run of fine-tuning."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_finetune_runs import CONFIG, clips, encoder, tensors

from emotion2vec.finetuning import run as run_module
from emotion2vec.finetuning.config import FinetuneConfig
from emotion2vec.finetuning.run import finetune
from emotion2vec.finetuning.splits import cut_validation
from emotion2vec.finetuning.trainer import CHECKPOINTS, STATE_NAME
from emotion2vec.manifest import Record

__all__ = ["encoder"]


class KilledError(Exception):
    """What stands for a kill here."""


def kill_before_the_end(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    """Let the run die when its training has ended, after `action` on its folder."""

    real = run_module._Run.train

    def train(self: Any, *arguments: Any, **options: Any) -> Any:
        real(self, *arguments, **options)
        action(self.out)
        raise KilledError

    monkeypatch.setattr(run_module._Run, "train", train)


def test_a_torn_checkpoint_is_passed_over(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = clips(2, 4)
    config = replace(CONFIG, epochs=2)
    whole = finetune(encoder, records, tmp_path / "whole", config)

    def tear(out: Path) -> None:
        last = max((out / CHECKPOINTS).glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
        (last / STATE_NAME).unlink()  # what is written last
        (last / "model.safetensors").write_bytes(b"torn")

    with monkeypatch.context() as patch:
        kill_before_the_end(patch, tear)
        with pytest.raises(KilledError):
            finetune(encoder, records, tmp_path / "killed", config)
    again = finetune(encoder, records, tmp_path / "killed", config, resume=True)
    one, other = tensors(whole.model), tensors(again.model)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_had_stopped_early_stays_stopped(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = clips(2)
    config = replace(CONFIG, epochs=12, patience=1, peak_lr=1e-2, head_lr=1e-1)
    whole = finetune(encoder, records, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        kill_before_the_end(patch, lambda out: None)
        with pytest.raises(KilledError):
            finetune(encoder, records, tmp_path / "killed", config)
    before = sorted(p.name for p in (tmp_path / "killed" / CHECKPOINTS).iterdir())
    steps = max(int(name.split("-")[1]) for name in before)
    assert steps < 12 * len(records) // 8  # it had stopped
    again = finetune(encoder, records, tmp_path / "killed", config, resume=True)
    one, other = tensors(whole.model), tensors(again.model)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert again.found["how"] == whole.found["how"]


def test_other_folds_are_another_run(encoder: Path, tmp_path: Path) -> None:
    records = clips(1, 4)
    speakers = sorted({r.speaker for r in records})

    def write(first: list[Any]) -> Path:
        parts = [first, [s for s in speakers if s not in first]]
        folds = [
            {
                "train": [r.key for r in records if r.speaker not in part],
                "test": [r.key for r in records if r.speaker in part],
            }
            for part in parts
        ]
        (tmp_path / "folds.json").write_text(json.dumps({"two": {"folds": folds}}))
        return tmp_path / "folds.json"

    config = replace(CONFIG, validation="none", epochs=1)
    folds = write(speakers[:2])
    finetune(encoder, records, tmp_path / "run", config, folds=folds)
    shutil.rmtree(tmp_path / "run" / "final")
    finetune(encoder, records, tmp_path / "run", config, folds=folds, resume=True)
    with pytest.raises(ValueError, match="holds a run with another data"):
        finetune(
            encoder, records, tmp_path / "run", config, folds=write(speakers[1:3]), resume=True
        )
    with pytest.raises(ValueError, match="both validation and folds are given"):
        finetune(encoder, records[1:], tmp_path / "x", config, folds=folds, valid=records[:1])


def test_recordings_on_two_sides_are_refused(encoder: Path, tmp_path: Path) -> None:
    records = clips(1, 4)
    with pytest.raises(ValueError, match="1 keys come twice"):
        finetune(encoder, records, tmp_path / "run", CONFIG, test=records[:1])
    again = replace(records[0], key="again")
    with pytest.raises(ValueError, match="come twice under other keys"):
        finetune(encoder, records, tmp_path / "run", CONFIG, test=[again])
    with pytest.raises(FileNotFoundError, match="nope is neither a folder, mini"):
        finetune("nope", records, tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_workers_load_what_the_process_itself_would(encoder: Path, tmp_path: Path) -> None:
    records = clips(1, 4)
    config = replace(CONFIG, epochs=1, speeds=(0.9, 1.1), validation="none")
    one = finetune(encoder, records, tmp_path / "none", config).model
    other = finetune(encoder, records, tmp_path / "one", replace(config, num_workers=1)).model
    assert all(torch.equal(v, tensors(other)[name]) for name, v in tensors(one).items())


def test_validation_is_of_speakers_and_of_what_people_said() -> None:
    told = [Record(f"{s}{i}", f"{s}{i}.wav", speaker=s) for s in "abcde" for i in range(4)]
    guessed = [replace(r, key=f"t{r.key}", path=f"t{r.path}", scores={"sad": 1.0}) for r in told]
    nobody = [Record(f"n{i}", f"n{i}.wav", scores={"sad": 1.0}) for i in range(9)]
    train, valid, how = cut_validation([*told, *guessed, *nobody], FinetuneConfig())
    assert len(valid) == 4 and not any(r.scores for r in valid)
    assert {r.speaker for r in valid} & {r.speaker for r in train} == set()
    assert all(r in train for r in nobody)
    assert "fifth of the training speakers" in how
    _, valid, how = cut_validation(nobody, FinetuneConfig())
    assert len(valid) == 2 and "clips" in how
    train, valid, _ = cut_validation(told, FinetuneConfig(validation="clips"))
    assert len(valid) == 4 and len(train) == 16


def test_a_clip_that_hardly_has_a_frame_stays_one(encoder: Path, tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "s.wav", [0.1, -0.1] * 205, 16_000)  # 410 samples; faster, 373
    short = replace(clips(1, 1)[0], key="short", path=str(tmp_path / "s.wav"))
    config = replace(CONFIG, epochs=1, speeds=(1.1,), validation="none")
    result = finetune(encoder, [*clips(1, 4), short], tmp_path / "run", config)
    assert result.left_out == {}
