"""What a run's health is read from: ranks, gradient norms, pace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY

from emotion2vec import Emotion2vecConfig
from emotion2vec.losses import effective_rank, spread
from emotion2vec.model import Emotion2vecStudent
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.data import Batch
from emotion2vec.pretraining.gauges import PARTS, gradient_norms, ranks
from emotion2vec.pretraining.monitor import Pace
from emotion2vec.pretraining.teacher import Teacher

CONFIG = PretrainConfig(model=Emotion2vecConfig(**TINY), num_masks=2, top_k=2)


def batch(clips: int = 3, samples: int = 16000) -> Batch:
    visible = torch.arange(0, 48, 2).expand(clips, 2, -1)
    return Batch(torch.randn(clips, samples), visible, ())


def test_effective_rank_is_the_formula() -> None:
    vectors = torch.randn(200, 12) * torch.logspace(0, -6, 12)  # float32 alone would lose the last
    values = np.linalg.svd(vectors.double().numpy() - vectors.double().mean(0).numpy())[1]
    share = values / values.sum()
    expected = np.exp(-(share * np.log(share)).sum())
    assert float(effective_rank(vectors)) == pytest.approx(expected, rel=1e-6)
    turned = vectors.double() @ torch.linalg.qr(torch.randn(12, 12).double())[0] * 7 + 3
    assert float(effective_rank(turned)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    "vectors, rank",
    [
        (torch.randn(4000, 8), 8.0),
        (torch.randn(50, 1) * torch.randn(8), 1.0),
        (torch.ones(5, 8), 1.0),
        (torch.ones(1, 8), 1.0),
        (torch.randn(3, 8), 2.0),  # three points span a plane at most
    ],
)
def test_effective_rank_of_what_is_known(vectors: torch.Tensor, rank: float) -> None:
    assert float(effective_rank(vectors)) == pytest.approx(rank, rel=0.15)
    assert effective_rank(vectors * torch.nan).isnan()


def test_a_collapse_of_rank_shows_where_the_spread_does_not() -> None:
    healthy = torch.randn(1000, 48)
    line = torch.randn(1000, 1) * torch.ones(48)
    keep = torch.ones(1, 1000, dtype=torch.bool)
    assert float(spread(line[None], keep)) == pytest.approx(
        float(spread(healthy[None], keep)), rel=0.1
    )
    assert effective_rank(healthy) > 40 > 1.1 > effective_rank(line)


def test_gradient_norms_by_part_make_up_the_whole() -> None:
    student = Emotion2vecStudent(CONFIG.model)
    output = student(batch().waveform, batch().visible)
    (output.prediction.square().sum() + output.tokens.sum()).backward()
    norms = gradient_norms(student)
    assert set(norms) == {"gradient_norm", *(f"gradient_norm_{part}" for part in PARTS)}
    expected = torch.cat([p.grad.flatten().double() for p in student.parameters()])  # type: ignore[union-attr]
    assert float(norms["gradient_norm"]) == pytest.approx(float(expected.norm()), rel=1e-5)
    decoder = torch.cat([p.grad.flatten().double() for p in student.decoder.parameters()])  # type: ignore[union-attr]
    assert float(norms["gradient_norm_decoder"]) == pytest.approx(float(decoder.norm()), rel=1e-5)


def test_ranks_draw_nothing_and_change_nothing() -> None:
    student = Emotion2vecStudent(CONFIG.model).train()
    teacher = Teacher(student.encoder.context, top_k=2)
    sound, visible, _ = batch()
    before, drawn = {k: v.clone() for k, v in student.state_dict().items()}, torch.get_rng_state()
    first = ranks(student, teacher, sound, visible)
    assert first == ranks(student, teacher, sound, visible)  # dropouts are off
    assert torch.get_rng_state().equal(drawn) and student.training
    assert all(value.equal(before[name]) for name, value in student.state_dict().items())
    assert all(1 < float(rank) < 48 for rank in first.values())
    with torch.no_grad():
        student.decoder.projection.weight.zero_()
    assert float(ranks(student, teacher, sound, visible)["prediction_rank"]) == 1


def test_pace_counts_all_processes_and_the_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    pace = Pace(replace(CONFIG, max_updates=10), processes=2)
    pace.count([batch(3), batch(1)])  # 4 s of sound, 49 frames each, of which 24 are visible
    pace.count([batch(4)])
    now[0] += 9
    pace.pause(1.0)
    assert pace.read(updates_left=6) == {
        "masked_share": pytest.approx(25 / 49),
        "frames_per_second": pytest.approx(2 * 8 * 49 / 8),
        "audio_seconds_per_second": pytest.approx(2.0),
        "updates_per_second": pytest.approx(0.25),
        "seconds": pytest.approx(8.0),
        "seconds_left": pytest.approx(24.0),
    }
    assert pace.updates == pace.frames == 0
