"""The loop: what a run writes, killing and resuming, several processes, collapse, bad input."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from accelerate import Accelerator
from conftest import TINY, write_tone
from safetensors.torch import load_file

from emotion2vec import Emotion2vec, Emotion2vecConfig
from emotion2vec.jsonl import read_jsonl
from emotion2vec.manifest import find_recordings
from emotion2vec.pretraining import step
from emotion2vec.pretraining.config import PretrainConfig, read_config
from emotion2vec.pretraining.data import Batches, scan
from emotion2vec.pretraining.loop import collapse, new_state, pretrain
from emotion2vec.pretraining.monitor import CollapseError
from emotion2vec.pretraining.order import plan_epoch

CONFIG = PretrainConfig(
    model=Emotion2vecConfig(**TINY),
    max_updates=8,
    max_batch_seconds=3.0,
    max_clip_seconds=2.0,
    num_workers=0,
    num_masks=2,
    top_k=2,
    peak_lr=1e-3,
    warmup_updates=2,
    ema_start=0.9,
    ema_end=0.99,
    ema_anneal_updates=5,
    precision="fp32",
    log_every=1,
    save_every=1,
)


def run(config: PretrainConfig, data: Path, out: Path, **options: Any) -> Path:
    return pretrain(config, find_recordings(data), out, progress=False, **options).model


def weights(out: Path) -> dict[str, torch.Tensor]:
    """Everything that a run's checkpoint holds."""
    return load_file(out / "last.safetensors")


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.equal(second[name]), name


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_pieces_of_a_micro_batch_learn_what_the_whole_does(
    tones: Path, monkeypatch: pytest.MonkeyPatch, reduction: str
) -> None:
    none = {f"{n}_dropout": 0.0 for n in ("attention", "projection", "mlp", "prenet", "decoder")}
    config = replace(
        CONFIG,
        model=replace(CONFIG.model, **none),
        utterance_reduction=reduction,
        mask_noise_std=0.0,
        block_drop=0.0,
    )
    batches = Batches(scan(find_recordings(tones), config, progress=False), config)
    line = [batches[n] for n in range(batches.batches_per_epoch)]
    batch = max(line, key=lambda batch: len(batch.waveform))
    found = []
    for widest in (1e9, 1.0):
        monkeypatch.setattr(step, "_WIDEST_ACTIVATION", widest)
        state = new_state(config)
        for _ in range(3):
            metrics = step.update(state, state.student, [batch], config, Accelerator(cpu=True))
        found.append({name: float(value) for name, value in metrics.items()})
        clips = step.clips_at_once(batch, config, torch.device("cpu"))
        assert clips == 1 if widest == 1.0 else clips >= len(batch.waveform) > 1
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_a_run_leaves_what_it_promises(tones: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    model = Emotion2vec.from_pretrained(run(CONFIG, tones, out))
    assert model(torch.randn(1, 8000)).last_hidden_state.isfinite().all()
    lines = read_jsonl(out / "metrics.jsonl")
    assert [line["update"] for line in lines] == list(range(1, 9))
    names = {"loss", "frame_loss", "utterance_loss", "target_spread", "prediction_spread", "lr",
             "tau", "gradient_norm", "gradient_norm_blocks", "target_rank", "prediction_rank",
             "encoder_rank", "masked_share", "frames_per_second", "audio_seconds_per_second",
             "updates_per_second", "seconds", "seconds_left", "epoch"}  # fmt: skip
    assert names <= lines[0].keys()
    assert lines[0]["lr"] == 0 and lines[2]["lr"] == pytest.approx(1e-3)
    assert lines[-1]["frame_loss"] < lines[0]["frame_loss"]
    assert lines[-1]["epoch"] > 1
    assert list((out / "tensorboard").iterdir())
    assert read_config(out / "config.toml") == CONFIG
    assert not (out / "skipped.jsonl").exists()
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]


def test_the_same_seed_gives_the_same_weights(tones: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, max_updates=3)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(replace(config, seed=seed), tones, tmp_path / name)
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    name = "student.encoder.context.blocks.0.mlp.fc1.weight"
    assert not weights(tmp_path / "a")[name].equal(weights(tmp_path / "c")[name])


def test_gradient_checkpointing_is_a_setting(tones: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, max_updates=2, block_drop=0.0)
    run(config, tones, tmp_path / "plain")
    run(replace(config, gradient_checkpointing=True), tones, tmp_path / "saving")
    first, second = weights(tmp_path / "plain"), weights(tmp_path / "saving")
    for name in first:
        torch.testing.assert_close(first[name], second[name])


def test_bfloat16_learns(tones: Path, tmp_path: Path) -> None:
    run(replace(CONFIG, precision="bf16"), tones, tmp_path / "run")
    losses = [line["frame_loss"] for line in read_jsonl(tmp_path / "run" / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    assert {value.dtype for value in weights(tmp_path / "run").values()} == {torch.float32}


@pytest.mark.parametrize("loss, tokens", [("token", 1), ("global", 0), ("none", 4)])
def test_every_utterance_loss_trains(loss: str, tokens: int, tones: Path, tmp_path: Path) -> None:
    model = Emotion2vecConfig(**{**TINY, "num_utterance_tokens": tokens})
    config = replace(CONFIG, model=model, utterance_loss=loss, masker="span", max_updates=4)
    run(config, tones, tmp_path / "run")
    lines = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert all((line["utterance_loss"] == 0) == (loss == "none") for line in lines)


def test_the_pooled_utterance_target_differs_between_clips() -> None:
    state = new_state(replace(CONFIG, utterance_target="pooled"))
    features = torch.randn(3, 20, TINY["embed_dim"])
    pooled = state.teacher(features).utterance
    assert (pooled[0] - pooled[1]).abs().max() > 0.01
    assert pooled.mean(dim=1).abs().max() < 1e-5


# Collapse.


def test_collapse_stops_the_run_after_saving(tones: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, collapse_after=4, min_target_spread=100.0, save_every=1000)
    with pytest.raises(
        CollapseError, match="target spread is .* at update 4, under the floor"
    ) as e:
        run(config, tones, tmp_path / "run")
    assert "lower peak_lr" in str(e.value) and str(tmp_path) in str(e.value)
    assert (tmp_path / "run" / "collapsed.safetensors").is_file()
    assert not (tmp_path / "run" / "last.safetensors").exists()  # save_every is far off
    assert not (tmp_path / "run" / "final").exists()


def test_a_collapsed_teacher_is_seen(tones: Path, tmp_path: Path) -> None:
    # Not by a raised floor: a teacher whose blocks answer the same for every frame.
    from emotion2vec.pretraining import loop

    def silenced(config: PretrainConfig, device: Any = "cpu") -> Any:
        state = new_state(config, device)
        for block in state.student.encoder.context.blocks:
            torch.nn.init.zeros_(block.mlp.fc2.weight)
            block.mlp.fc2.weight.requires_grad_(False)
        for block in state.teacher.context.blocks:
            torch.nn.init.zeros_(block.mlp.fc2.weight)
        return state

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "new_state", silenced)
        with pytest.raises(CollapseError, match="the target spread"):
            run(replace(CONFIG, collapse_after=2), tones, tmp_path / "run")


def test_prediction_collapse_and_a_loss_that_is_no_number() -> None:
    good = {"loss": 1.0, "gradient_norm": 1.0, "target_spread": 0.5, "prediction_spread": 0.5}
    assert collapse(good, 5000, PretrainConfig()) == ""
    assert "prediction spread" in collapse(
        {**good, "prediction_spread": 0.001}, 5000, PretrainConfig()
    )
    assert collapse({**good, "prediction_spread": 0.001}, 4999, PretrainConfig()) == ""
    assert "precision=fp32" in collapse({**good, "loss": float("nan")}, 1, PretrainConfig())


def test_a_loss_that_is_no_number_never_reaches_the_checkpoint(tones: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, peak_lr=1e30, save_every=1, log_every=4)
    with pytest.raises(CollapseError, match=r"the (loss|gradient_norm) is (nan|inf)"):
        run(config, tones, tmp_path / "run")
    assert all(value.isfinite().all() for value in weights(tmp_path / "run").values())


# Data.


def test_every_epoch_holds_every_clip_once_within_the_budget() -> None:
    lengths = np.random.default_rng(0).integers(4000, 90000, 200)
    plans = []
    for seed in range(3):
        plan = plan_epoch(
            lengths,
            max_batch_samples=200_000,
            max_clip_samples=64_000,
            generator=np.random.default_rng(seed),
        )
        assert sorted(np.concatenate(plan)) == list(range(200))
        for batch in plan:
            sizes = np.minimum(lengths[batch], 64_000)
            assert len(batch) * sizes.max() <= 200_000
        # Like lengths together: little is cropped, far less than in an order without plan.
        kept = sum(len(batch) * np.minimum(lengths[batch], 64_000).min() for batch in plan)
        assert kept > 0.95 * np.minimum(lengths, 64_000).sum()
        plans.append([batch.tolist() for batch in plan])
    assert plans[0] != plans[1] and len(plans[0]) == len(plans[1]) == len(plans[2])


def test_a_batch_follows_from_its_number_alone(tones: Path) -> None:
    corpus = scan(find_recordings(tones), CONFIG, progress=False)
    forwards = Batches(corpus, CONFIG)
    drawn = {number: forwards[number] for number in range(12)}
    backwards = Batches(corpus, CONFIG)
    for number in reversed(range(12)):
        again = backwards[number]
        assert again.waveform.equal(drawn[number].waveform)
        assert again.visible.equal(drawn[number].visible)
    other = Batches(corpus, replace(CONFIG, seed=9))[0]
    same_shape = other.visible.shape == drawn[0].visible.shape
    assert not (same_shape and other.visible.equal(drawn[0].visible))


def test_clips_are_normalized_before_the_crop(tmp_path: Path) -> None:
    for i in range(2):
        write_tone(tmp_path / f"{i}.wav", 1.0 + i, pitch=200)
    config = replace(CONFIG, max_batch_seconds=4.0)
    batch = Batches(scan(find_recordings(tmp_path), config, progress=False), config)[0]
    assert batch.waveform.shape == (2, 16000)  # cropped to the shorter
    assert batch.visible.shape == (2, 2, 49 - 24)
    assert batch.waveform.std(dim=1) == pytest.approx([1, 1], abs=0.02)


# Bad input: the rest goes on, and nothing that is there is lost.


def test_bad_recordings_are_left_out_and_listed(tones: Path, tmp_path: Path) -> None:
    (tones / "empty.wav").write_bytes(b"")
    (tones / "noise.wav").write_bytes(os.urandom(4000))
    write_tone(tones / "short.wav", 0.02)
    write_tone(tones / "brief.wav", 0.2)
    soundfile.write(tones / "silent.wav", np.zeros(16000), 16000)
    soundfile.write(tones / "nan.wav", np.full(16000, np.nan), 16000, "FLOAT")
    soundfile.write(tones / "alone.wav", np.zeros(40000), 16000)  # a batch of its own
    whole = write_tone(tones / "cut.flac", 1.0).read_bytes()
    (tones / "cut.flac").write_bytes(whole[: len(whole) // 2])  # its header is fine
    config = replace(CONFIG, max_updates=14, num_workers=1)
    result = pretrain(config, find_recordings(tones), tmp_path / "run", progress=False)
    rows = {row["key"]: row["error"] for row in read_jsonl(tmp_path / "run" / "skipped.jsonl")}
    assert result.skipped == len(rows) == 8
    assert "empty (0 bytes)" in rows["empty"]
    assert "cannot be decoded as audio" in rows["noise"]
    assert "0.020 s, under min_clip_seconds" in rows["short"]
    assert "0.200 s, under min_clip_seconds" in rows["brief"]
    assert "cut.flac cannot be decoded" in rows["cut"]
    assert "silent" in rows["silent"] and "silent" in rows["alone"] and "NaN" in rows["nan"]


def test_when_nothing_can_be_read_any_more(tones: Path, tmp_path: Path) -> None:
    for path in tones.iterdir():
        soundfile.write(path, np.zeros(16000), 16000)  # headers are fine
    for workers in (0, 1):
        config = replace(CONFIG, num_workers=workers)
        with pytest.raises(
            ValueError, match="no recording can be read any more: .* is silent"
        ) as e:
            run(config, tones, tmp_path / str(workers))
        assert "Traceback" not in str(e.value)


def test_nothing_to_train_on(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(ValueError, match="none of 1 recordings can be trained on: .*a.wav cannot"):
        run(CONFIG, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_overwritten_and_resumes_only_what_belongs(
    tones: Path, tmp_path: Path
) -> None:
    config, out = replace(CONFIG, max_updates=2), tmp_path / "run"
    with pytest.raises(FileNotFoundError, match="nothing to resume; run without --resume"):
        run(config, tones, out, resume=True)
    run(config, tones, out)
    before = (out / "last.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="add --resume"):
        run(config, tones, out)
    with pytest.raises(ValueError, match=r"another config .peak_lr was 0.001 and is 0.5"):
        run(replace(config, peak_lr=0.5), tones, out, resume=True)
    write_tone(tones / "new.wav")
    with pytest.raises(ValueError, match="other recordings than those given"):
        run(config, tones, out, resume=True)
    assert (out / "last.safetensors").read_bytes() == before
    (out / "last.safetensors").write_bytes(before[:1000])
    with pytest.raises(ValueError, match="last.safetensors is damaged"):
        run(config, tones, out, resume=True)


def test_an_output_that_cannot_be_written(tones: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write .*file.run"):
        run(CONFIG, tones, tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "in the way"
