"""What a run will cost: counts beside the reference's and torch's, memory beside a real peak."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY, call, write_tone
from test_pretraining_loop import CONFIG
from torch.utils.flop_counter import FlopCounterMode

from emotion2vec import Emotion2vecConfig, Emotion2vecStudent
from emotion2vec.pretraining.config import PretrainConfig, read_config, write_config
from emotion2vec.pretraining.costs import flops, memory, parameters
from emotion2vec.pretraining.data import Batches, scan
from emotion2vec.pretraining.plan import Measured, make_plan, matmul_rate, table
from emotion2vec.pretraining.teacher import Teacher

BASE = read_config(ROOT / "configs" / "pretrain_base.toml")


def test_parameters_of_the_base_model() -> None:
    # golden/baselines/param_counts.json and the size of the reference's moving average
    assert parameters(BASE) == {
        "student": 93_790_988,
        "encoder": 93_790_988 - 619_776,
        "decoder": 619_776,
        "teacher": 88_569_612,
    }


def test_a_base_step_has_the_reference_s_flops() -> None:
    # golden/baselines/analytic_flops.json, pretrain_base_4x5s_clone8: 4 clips of 5 s, 8 masks
    assert flops(BASE, 4, 80_000) == {
        "convolutions": 98_139_332_608,
        "projection": 783_286_272,
        "positions": 55_809_146_880,
        "blocks": 755_334_512_640,
        "decoder": 9_840_033_792,
        "teacher": 192_852_246_528,
        "backward": 1_839_157_305_344,
    }


def counted(config: PretrainConfig, clips: int, samples: int) -> tuple[int, int, int]:
    """What torch counts in student, teacher and backward pass, on shapes alone."""
    frames = config.model.num_frames(samples)
    visible = frames - int(frames * config.mask_share)
    with torch.device("meta"):
        student = Emotion2vecStudent(config.model).train()
        teacher = Teacher(student.encoder.context, top_k=config.top_k)
        student.encoder.set_attention("eager")  # torch does not count all of its fused kernels
        teacher.context.load_state_dict(student.encoder.context.state_dict())
        for block in teacher.context.blocks:
            block.attention.implementation = "eager"
        waveform = torch.zeros(clips, samples)
        index = torch.zeros(clips, config.num_masks, visible, dtype=torch.int64)
        with FlopCounterMode(display=False) as forward:
            output = student(waveform, index)
        with FlopCounterMode(display=False) as targets:
            teacher(output.features.detach())
        loss = output.prediction.sum() + output.tokens.sum()
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    return forward.get_total_flops(), targets.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("samples", [4_000, 16_000])
def test_flops_are_those_that_torch_counts(samples: int) -> None:
    # One group: torch counts a grouped convolution's backward pass as if it had none.
    model = Emotion2vecConfig(**TINY, position_groups=1, decoder_groups=1)
    config = replace(CONFIG, model=model)
    ours = flops(config, 3, samples)
    student, teacher, backward = counted(config, 3, samples)
    parts = ("convolutions", "projection", "positions", "blocks", "decoder")
    assert sum(ours[part] for part in parts) == student
    assert ours["teacher"] == teacher
    assert ours["backward"] == backward


def test_groups_divide_convolutions() -> None:
    whole = Emotion2vecConfig(**TINY, position_groups=1, decoder_groups=1)
    first, second = (
        flops(replace(CONFIG, model=model), 2, 16_000)
        for model in (whole, Emotion2vecConfig(**TINY))
    )
    assert first["positions"] == 16 * second["positions"]
    assert first["blocks"] == second["blocks"]


def test_recomputing_costs_time_and_saves_memory() -> None:
    saving = replace(BASE, gradient_checkpointing=True)
    plain_work, saving_work = flops(BASE, 4, 80_000), flops(saving, 4, 80_000)
    assert saving_work["backward"] - plain_work["backward"] == plain_work["blocks"]
    plain, less = memory(BASE, 4, 80_000), memory(saving, 4, 80_000)
    assert less["activations"] < plain["activations"] / 2
    assert {**less, "activations": 0} == {**plain, "activations": 0}


def test_pseudo_labels_have_a_whole_encoder_for_a_teacher() -> None:
    config = replace(BASE, clusters=(64, 512), utterance_loss="none")
    assert parameters(config)["teacher"] == parameters(BASE)["encoder"]
    assert flops(config, 1, 80_000)["teacher"] > flops(BASE, 1, 80_000)["teacher"]


def test_steps_and_hours_follow_from_the_corpus(tones: Path) -> None:
    config = replace(CONFIG, accumulate=2, max_clip_seconds=1.0)
    corpus = scan([str(tones)], config, progress=False)
    batches = Batches(corpus, config)
    measured = Measured("cpu", "fp32", 1.0, 3.0, 1e9, 1e10, None)
    device = torch.device("cpu")
    plan = make_plan(config, corpus, device=device, processes=3, measured=measured)
    assert plan.clips == 12 and plan.left_out == 0
    assert plan.updates_per_epoch == batches.batches_per_epoch / 6
    assert plan.epochs == pytest.approx(8 * 6 / batches.batches_per_epoch)
    made = [batches[n].waveform.shape for n in range(batches.batches_per_epoch)]
    assert batches.sizes() == [tuple(shape) for shape in made]
    assert plan.hours == pytest.approx(sum(s.numel() for s in made) / 16000 / 3600)
    an_epoch = sum(sum(flops(config, *shape).values()) for shape in made)
    assert sum(plan.flops.values()) == pytest.approx(an_epoch / plan.updates_per_epoch)
    assert plan.expected_hours == pytest.approx(8 / plan.updates_per_epoch * an_epoch / 3e9 / 3600)
    assert make_plan(config, corpus, device=device).expected_hours is None
    text = table(plan)
    assert "1.0 GFLOP/s, 10% of a matrix product's 10.0 GFLOP/s" in text
    assert "updates" in text and "epochs" in text


def test_a_plan_is_printed_and_nothing_is_written(
    tones: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(CONFIG, tmp_path / "c.toml")
    words = ("pretrain", tmp_path / "c.toml", "--data", tones, "--out", tmp_path / "run", "--quiet")
    assert call(*words, "--plan") == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()] == [
        *("parameters", "data", "updates", "FLOPs", "memory", "measured", "expected")
    ]
    assert call(*words, "--plan", "--no-measure", "--format", "json", "--masks", "3") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["measured"] is None and plan["expected_hours"] is None
    assert plan["clips"] == 12 and plan["max_updates"] == 8
    assert not (tmp_path / "run").exists()
    (tones / "bad.wav").write_bytes(b"no sound")
    assert call(*words, "--plan", "--no-measure") == 3


def test_the_rate_of_a_product_is_plausible() -> None:
    assert 1e8 < matmul_rate(torch.device("cpu"), torch.float32) < 1e14


@pytest.mark.slow
def test_the_memory_estimate_is_near_the_peak(tmp_path: Path) -> None:
    # A process of its own: what others freed would be taken again, unseen.
    for i in range(4):
        write_tone(tmp_path / "data" / f"{i}.wav", 4.0, pitch=110 + 20 * i)
    model = Emotion2vecConfig(embed_dim=192, num_heads=3, conv_channels=(64,) * 7)
    config = PretrainConfig(model, max_batch_seconds=8.0, max_clip_seconds=4.0, precision="fp32")
    write_config(config, tmp_path / "c.toml")
    words = (
        "pretrain",
        tmp_path / "c.toml",
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "run",
    )
    done = subprocess.run(
        [sys.executable, "-m", "emotion2vec", *map(str, words), "--plan", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    plan = json.loads(done.stdout)
    assert sum(plan["memory"].values()) == pytest.approx(plan["measured"]["peak_bytes"], rel=0.25)
