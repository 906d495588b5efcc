"""The loop: what a run writes, killing and resuming, several processes, collapse, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import NO_DROPOUT, TINY, write_tone
from safetensors.torch import load_file

from emotion2vec import Emotion2vec, Emotion2vecConfig
from emotion2vec.manifest import find_recordings
from emotion2vec.pretraining.config import (
    PretrainConfig,
    parse_override,
    read_config,
    write_config,
)
from emotion2vec.pretraining.data import Batches, plan_epoch, scan
from emotion2vec.pretraining.loop import collapse, new_state, pretrain
from emotion2vec.pretraining.monitor import CollapseError, read_jsonl

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


def test_a_run_leaves_what_it_promises(tones: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    model = Emotion2vec.from_pretrained(run(CONFIG, tones, out))
    assert model(torch.randn(1, 8000)).last_hidden_state.isfinite().all()
    lines = read_jsonl(out / "metrics.jsonl")
    assert [line["update"] for line in lines] == list(range(1, 9))
    names = {"loss", "frame_loss", "utterance_loss", "target_spread", "prediction_spread", "lr",
             "tau", "gradient_norm", "frames_per_second", "epoch"}  # fmt: skip
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


def command(config: Path, data: Path, out: Path, *, processes: int, resume: bool) -> list[str]:
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
                     str(processes)]  # fmt: skip
    words = ["-m", "emotion2vec", "pretrain", str(config), "--data", str(data), "--out", str(out)]
    return [*launcher, *words, "--quiet", *(["--resume"] if resume else [])]


def environment() -> dict[str, str]:
    return {**os.environ, "ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}


def kill_when(done: Sequence[int], words: list[str], out: Path) -> None:
    """Start a command and SIGKILL it and its children once update `done` is in the metrics."""
    process = subprocess.Popen(
        words, env=environment(), start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 180
    while not any(line["update"] in done for line in read_jsonl(out / "metrics.jsonl")):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_and_resumed_ends_as_if_it_had_not_been(
    processes: int, tones: Path, tmp_path: Path
) -> None:
    # Dropouts, dropped blocks and loader processes on; the checkpoint lags behind the kill.
    config = replace(CONFIG, max_updates=14, save_every=3, num_workers=2, accumulate=2)
    path = tmp_path / "config.toml"
    write_config(config, path)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options: dict[str, Any] = {"processes": processes}
    subprocess.run(
        command(path, tones, whole, resume=False, **options), env=environment(), check=True
    )
    kill_when([4, 5], command(path, tones, broken, resume=False, **options), broken)
    kill_when([8, 9], command(path, tones, broken, resume=True, **options), broken)
    assert not (broken / "final").exists()
    subprocess.run(
        command(path, tones, broken, resume=True, **options), env=environment(), check=True
    )
    assert_same(weights(whole), weights(broken))
    final = "final/model.safetensors"
    assert (whole / final).read_bytes() == (broken / final).read_bytes()
    lines = [read_jsonl(out / "metrics.jsonl") for out in (whole, broken)]
    assert [line["update"] for line in lines[1]] == list(range(1, 15))
    for first, second in zip(*lines, strict=True):
        assert first["loss"] == second["loss"]


def test_resuming_at_every_update_changes_nothing(tones: Path, tmp_path: Path) -> None:
    run(CONFIG, tones, tmp_path / "whole")
    for stop in range(1, 9):  # the schedule ends at 8 in both: max_updates is not what stops
        stopped = _StopAfter(stop)
        with pytest.raises(KeyboardInterrupt), stopped:
            run(CONFIG, tones, tmp_path / "parts", resume=stop > 1)
    run(CONFIG, tones, tmp_path / "parts", resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


class _StopAfter:
    """Interrupt a run right after it has logged update `stop`, before it saves."""

    def __init__(self, stop: int) -> None:
        self.stop = stop
        self.patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        from emotion2vec.pretraining import loop

        original = loop.save_checkpoint

        def save(state: Any, *arguments: Any) -> None:
            original(state, *arguments)
            if state.updates == self.stop:
                raise KeyboardInterrupt

        self.patch.setattr(loop, "save_checkpoint", save)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_processes_learn_what_one_does(tones: Path, tmp_path: Path, reduction: str) -> None:
    # One process with two micro-batches an update sees what two processes see with one each.
    model = Emotion2vecConfig(**TINY, **NO_DROPOUT)
    config = replace(
        CONFIG, model=model, block_drop=0.0, mask_noise_std=0.0, utterance_reduction=reduction
    )
    outs = []
    for processes, accumulate in ((1, 2), (2, 1)):
        path, out = tmp_path / f"{processes}.toml", tmp_path / str(processes)
        write_config(replace(config, accumulate=accumulate), path)
        words = command(path, tones, out, processes=processes, resume=False)
        subprocess.run(words, env=environment(), check=True)
        outs.append(out)
    losses = [[line["loss"] for line in read_jsonl(out / "metrics.jsonl")] for out in outs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    first, second = (weights(out) for out in outs)
    for name in (n for n in first if n.startswith("student.") and n.endswith("fc1.weight")):
        torch.testing.assert_close(first[name], second[name], atol=2e-4, rtol=1e-3)


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
    assert (tmp_path / "run" / "last.safetensors").is_file()
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
    good = {"loss": 1.0, "target_spread": 0.5, "prediction_spread": 0.5}
    assert collapse(good, 5000, PretrainConfig()) == ""
    assert "prediction spread" in collapse(
        {**good, "prediction_spread": 0.001}, 5000, PretrainConfig()
    )
    assert collapse({**good, "prediction_spread": 0.001}, 4999, PretrainConfig()) == ""
    assert "precision=fp32" in collapse({**good, "loss": float("nan")}, 1, PretrainConfig())


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
    whole = write_tone(tones / "cut.flac", 1.0).read_bytes()
    (tones / "cut.flac").write_bytes(whole[: len(whole) // 2])  # its header is fine
    config = replace(CONFIG, max_updates=12)
    result = pretrain(config, find_recordings(tones), tmp_path / "run", progress=False)
    rows = {row["key"]: row["error"] for row in read_jsonl(tmp_path / "run" / "skipped.jsonl")}
    assert result.skipped == len(rows) == 5
    assert "empty (0 bytes)" in rows["empty"]
    assert "cannot be decoded as audio" in rows["noise"]
    assert "0.020 s, under min_clip_seconds" in rows["short"]
    assert "0.200 s, under min_clip_seconds" in rows["brief"]
    assert "cut.flac cannot be decoded" in rows["cut"]


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


@pytest.mark.slow
def test_a_full_disk_keeps_the_last_checkpoint(tones: Path, tmp_path: Path) -> None:
    # A process's limit on the size of files stands for the disk: the write fails in the middle.
    import resource

    path, out = tmp_path / "config.toml", tmp_path / "run"
    write_config(CONFIG, path)
    with pytest.raises(KeyboardInterrupt), _StopAfter(2):
        run(CONFIG, tones, out)
    before = (out / "last.safetensors").read_bytes()
    limit = (len(before) // 2, len(before) // 2)
    words = command(path, tones, out, processes=1, resume=True)
    failed = subprocess.run(
        words,
        env=environment(),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )
    assert failed.returncode == 1
    assert f"error: cannot write {out}/last.safetensors" in failed.stderr
    assert "what was there before is untouched" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (out / "last.safetensors").read_bytes() == before
    assert not [file for file in out.iterdir() if file.name.endswith(".tmp")]
    run(CONFIG, tones, out, resume=True)
    run(CONFIG, tones, tmp_path / "whole")
    assert_same(weights(tmp_path / "whole"), weights(out))


def test_an_output_that_cannot_be_written(tones: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="cannot write .*file.run"):
        run(CONFIG, tones, tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "in the way"


# Settings.


def test_settings_are_read_written_and_laid_over(tmp_path: Path) -> None:
    write_config(CONFIG, tmp_path / "c.toml")
    assert read_config(tmp_path / "c.toml") == CONFIG
    laid_over = read_config(
        tmp_path / "c.toml", dict([parse_override("peak_lr=1e-4"), parse_override("model.depth=3")])
    )
    assert laid_over.peak_lr == 1e-4 and laid_over.model.depth == 3


@pytest.mark.parametrize(
    "text, message",
    [
        ("max_update = 3", "max_update is no setting; known are"),
        ("[model]\nwidth = 3", "model.width is no setting"),
        ("seed = ", "is not TOML"),
        ('max_updates = "many"', "wrong type"),
        ('masker = "blocks"', "masker is 'blocks'; choose one of block, span"),
        ("top_k = 12", "top_k is 12, but model.depth is 8"),
        ("mask_share = 1.5", r"mask_share is 1.5; it must be in \[0, 1\)"),
        ("max_clip_seconds = 90", "one clip must fit a batch"),
        ("min_clip_seconds = 0.03", "no frame to hide"),
        ("[model]\nembed_dim = 100", "100, which 12 heads"),
        ("[model]\nconv_kernels = [3]", "7, 1 and 7 entries"),
        ("[model]\nnum_utterance_tokens = 0", "num_utterance_tokens is 0"),
        ("[model]\nmlp_dropout = 1.0", "mlp_dropout is 1.0"),
        ("[model]\ndrop_residual = true", "pre_norm is false"),
    ],
)
def test_settings_that_contradict(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / "c.toml")


def test_the_configs_that_ship_are_valid() -> None:
    folder = Path(__file__).parent.parent / "configs"
    names = sorted(path.name for path in folder.glob("pretrain_*.toml"))
    assert {"pretrain_base.toml", "pretrain_tiny.toml", "pretrain_demo.toml"} <= set(names)
    for name in names:
        read_config(folder / name)
    base = read_config(folder / "pretrain_base.toml")
    assert json.loads(json.dumps(base.model.to_dict())) == json.loads(
        json.dumps(Emotion2vecConfig().to_dict())
    )
