"""Targets, losses, gradients, updates, masks and schedules against the reference's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from conftest import Golden, load_golden, relative_error, under_our_names
from torch import Tensor

from emotion2vec import Emotion2vecStudent
from emotion2vec.losses import UTTERANCE_LOSSES, frame_loss, spread
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.data import Batch
from emotion2vec.pretraining.masking import visible_indices
from emotion2vec.pretraining.schedules import ema_decay
from emotion2vec.pretraining.step import Counts, Objective, count, objective, weigh
from emotion2vec.pretraining.teacher import Teacher
from emotion2vec.published.reference import config_from_reference
from emotion2vec.weights import load_weights

LOSSES = ("chunk", "token", "global")


class Reference:
    """A golden pre-training step: models with its weights, batches with its masks."""

    def __init__(self, name: str) -> None:
        self.golden: Golden = load_golden(f"pretrain/{name}")
        self.name = name
        self.model_config = config_from_reference(self.golden.facts["model_conf"])
        self.config = PretrainConfig(
            model=self.model_config,
            utterance_loss=name,
            utterance_reduction="sum",  # what the reference optimizes
            top_k=2,
            mask_noise_std=0.0,
            block_drop=0.0,
            decay="all",
        )
        self.student = Emotion2vecStudent(self.model_config).train()
        load_weights(self.student, self.rename(self.golden.under("student/")), "golden")
        self.teacher = Teacher(self.student.encoder.context, top_k=2)
        ema = self.rename(self.golden.under("ema/"))
        teacher = {k.removeprefix("encoder.context."): v for k, v in ema.items()}
        load_weights(self.teacher.context, teacher, "golden")

    def rename(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Reference weights, or gradients of their shapes, under the student's names."""
        return under_our_names(weights, self.model_config)

    def batch(self, which: str, masks: int) -> Batch:
        waveform = self.golden.tensors[f"source_{which}"]
        hidden = self.golden.tensors[f"clone{masks}/mask_{which}"].numpy()
        visible = visible_indices(hidden).reshape(len(waveform), masks, -1)
        return Batch(waveform, torch.from_numpy(visible), ())


@pytest.fixture(scope="module", params=LOSSES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


@pytest.mark.parametrize("masks", [2, 8])
def test_targets_and_predictions(reference: Reference, masks: int) -> None:
    batch, golden = reference.batch("A", masks), reference.golden.under(f"clone{masks}/")
    assert batch.visible.flatten(0, 1).equal(golden["visible_idx"])
    with torch.no_grad():
        output = reference.student(batch.waveform, batch.visible)
        targets = reference.teacher(output.features)
    compared = {
        "local_features": output.features,
        "targets": targets.frames,
        "decoder_out_all": output.prediction,
    }
    if reference.name == "chunk" or masks == 2:  # else not stored
        compared["enc_x"] = torch.cat([output.tokens, output.frames], dim=1)
    for name, ours in compared.items():
        assert relative_error(ours, golden[name]) <= 1e-5, name
    compared = output.frames if reference.name == "global" else output.tokens
    predicted = compared.mean(dim=1)  # of the one token, where there is one
    assert relative_error(predicted, golden["cls_pred"]) <= 1e-5
    # The reference's utterance target is zero but for rounding: its frames are normed over time.
    assert golden["cls_target"].abs().max() < 1e-6
    assert targets.utterance.abs().max() < 1e-6


@pytest.mark.parametrize("masks", [2, 8])
def test_losses_and_the_total(reference: Reference, masks: int) -> None:
    facts = reference.golden.facts["scalars"][f"clone{masks}"]
    batch = reference.batch("A", masks)
    with torch.no_grad():
        parts = objective(reference.student, reference.teacher, batch, reference.config)
    own = count(batch, reference.config)
    assert (int(own.rows), int(own.hidden_frames)) == (facts["rows"], facts["sample_size"])
    assert float(parts.frame) == pytest.approx(facts["d2v_sum"], rel=2e-6)
    utterance_sum = float(parts.utterance) * facts["sample_size"]
    assert utterance_sum == pytest.approx(facts["cls_sum"], rel=2e-6)
    total = weigh(parts, reference.config, own=own, total=own)
    assert float(total) == pytest.approx(facts["total_per_sample"], rel=2e-6)
    spreads = [float(spread(x, parts.hidden)) for x in (parts.targets, parts.prediction)]
    assert spreads == pytest.approx([facts["target_var"], facts["pred_var"]], rel=1e-5)


@pytest.mark.parametrize("masks", [2, 8])
def test_every_gradient(reference: Reference, masks: int) -> None:
    batch = reference.batch("A", masks)
    reference.student.zero_grad()
    parts = objective(reference.student, reference.teacher, batch, reference.config)
    own = count(batch, reference.config)
    weigh(parts, reference.config, own=own, total=own).backward()
    gradients = {name: p.grad for name, p in reference.student.named_parameters()}
    facts = reference.golden.facts["scalars"][f"clone{masks}"]
    norms = {k: torch.tensor([[v]]) for k, v in facts["grad_norms"].items()}
    assert set(reference.rename(norms)) == set(gradients)
    for name, norm in reference.rename(norms).items():
        gradient = gradients[name]
        assert gradient is not None
        assert float(gradient.norm()) == pytest.approx(float(norm), rel=2e-5), name
    whole = reference.golden.under(f"clone{masks}/grad/")
    starts = reference.golden.under(f"clone{masks}/grad64/")
    assert len(whole) + len(starts) == len(gradients)
    for name, theirs in reference.rename(whole).items():
        ours = gradients[name]
        assert ours is not None
        assert float((ours - theirs).norm() / theirs.norm()) <= 2e-5, name
    for name, theirs in starts.items():
        ours = gradients[next(iter(reference.rename({name: theirs.unsqueeze(0)})))]
        assert ours is not None
        error = (ours.flatten()[: theirs.numel()] - theirs).norm() / theirs.norm()
        assert float(error) <= 2e-5, name


def fairseq_adam(
    parameters: list[Tensor], state: dict[int, Any], *, lr: float, decays: list[float]
) -> None:
    """One step of the reference's Adam: eps on the uncorrected root, decay before the step."""
    for i, (parameter, decay) in enumerate(zip(parameters, decays, strict=True)):
        step, first, second = state.setdefault(
            i, [0, torch.zeros_like(parameter), torch.zeros_like(parameter)]
        )
        step += 1
        gradient = parameter.grad
        assert gradient is not None
        first.mul_(0.9).add_(gradient, alpha=0.1)
        second.mul_(0.98).addcmul_(gradient, gradient, value=0.02)
        state[i][0] = step
        size = lr * math.sqrt(1 - 0.98**step) / (1 - 0.9**step)
        parameter.data.mul_(1 - lr * decay)
        parameter.data.addcdiv_(first, second.sqrt() + 1e-6, value=-size)


RUNS = ("fast_as_run", "fast_intended", "real_as_run", "real_intended", "peaklr_as_run",
        "cosine_small_intended")  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_five_updates(run: str) -> None:
    trajectory = load_golden("pretrain/trajectory")
    facts = trajectory.facts["runs"][run]
    reference = Reference("chunk")
    parameters = dict(reference.student.named_parameters())
    marked = reference.rename(
        {name: torch.zeros(1, 1) for name in trajectory.facts["no_decay_params_marked"]}
    )
    decays = [
        0.0 if facts["wd_mode"] == "intended" and name in marked else facts["weight_decay"]
        for name in parameters
    ]
    state: dict[int, Any] = {}
    start, end, anneal = facts["ema"]
    for expected in facts["log"]:
        number = expected["update"]
        batch = reference.batch(expected["batch"], 2)
        reference.student.zero_grad()
        parts = objective(reference.student, reference.teacher, batch, reference.config)
        own = count(batch, reference.config)
        loss = weigh(parts, reference.config, own=own, total=own)
        loss.backward()
        assert loss.item() == pytest.approx(expected["loss_per_sample"], rel=1e-4)
        assert float(own.hidden_frames) == expected["sample_size"]
        frame = parts.frame.item() / expected["sample_size"]
        assert frame == pytest.approx(expected["d2v"], rel=1e-4)
        norm = torch.nn.utils.clip_grad_norm_(parameters.values(), math.inf)
        assert float(norm) == pytest.approx(expected["grad_norm"], rel=1e-4)
        fairseq_adam(list(parameters.values()), state, lr=expected["lr_used"], decays=decays)
        decay = ema_decay(number, start=start, end=end, anneal_updates=anneal)
        assert decay == pytest.approx(expected["ema_decay_used"], rel=1e-12)
        reference.teacher.follow(reference.student.encoder.context, decay)
        compare_weights(trajectory, f"{run}/u{number}", reference, facts["lr"], number)


def compare_weights(
    trajectory: Golden, prefix: str, reference: Reference, lr: float, updates: int
) -> None:
    """Teacher to 1e-4, student to 5 % of how far it can have moved (rounding under Adam)."""
    models = {
        "ema": {f"encoder.context.{k}": v for k, v in reference.teacher.context.named_parameters()},
        "student": dict(reference.student.named_parameters()),
    }
    for kind, own in models.items():
        for suffix in ("", "64"):
            for name, theirs in trajectory.under(f"{prefix}/{kind}{suffix}/").items():
                ours = own[next(iter(reference.rename({name: torch.zeros(1, 1)})))].detach()
                ours = ours.flatten()[: theirs.numel()].view_as(theirs)
                difference = float((ours - theirs).abs().max())
                assert difference <= 0.05 * lr * updates + 1e-7, (prefix, name)
                if kind == "ema":
                    assert difference <= 1e-4 * max(float(theirs.abs().max()), 0.1), (prefix, name)


def test_the_loop_s_own_update_meets_the_first_golden_one() -> None:
    # Loss, norm, rate and decay of `update` itself; its AdamW differs from fairseq's by intent.
    from accelerate import Accelerator

    from emotion2vec.pretraining.checkpoint import TrainState
    from emotion2vec.pretraining.loop import _optimizer
    from emotion2vec.pretraining.step import update

    facts = load_golden("pretrain/trajectory").facts
    reference = Reference("chunk")
    config = replace(reference.config, precision="fp32", decay="weights")
    optimizer = _optimizer(reference.student, config)
    state = TrainState(reference.student, reference.teacher, optimizer)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    for expected in facts["runs"]["real_as_run"]["log"]:
        batch = reference.batch(expected["batch"], 2)
        metrics = update(state, state.student, [batch], config, accelerator)
        assert float(metrics["loss"]) == pytest.approx(expected["loss_per_sample"], rel=1e-4)
        assert float(metrics["gradient_norm"]) == pytest.approx(expected["grad_norm"], rel=1e-3)
        assert float(metrics["lr"]) == pytest.approx(expected["lr_used"], rel=1e-6)
        assert float(metrics["tau"]) == pytest.approx(expected["ema_decay_used"], rel=1e-6)
    plain = {id(p) for p in optimizer.param_groups[1]["params"]}
    names = {n for n, p in reference.student.named_parameters() if id(p) in plain}
    marked = {name: torch.zeros(1, 1) for name in facts["no_decay_params_marked"]}
    assert names == {*reference.rename(marked), "encoder.context.utterance_tokens"}


def test_the_trajectory_is_compared_where_the_issue_asks() -> None:
    names = load_golden("pretrain/trajectory").tensors
    for run in RUNS:
        for part in ("u1/ema", "u3/ema", "u5/student"):
            assert any(name.startswith(f"{run}/{part}") for name in names)


def test_the_reductions_differ_by_the_number_of_rows() -> None:
    unused = torch.zeros(0)
    parts = Objective(torch.tensor(100.0), torch.tensor(8.0), unused, unused, unused)
    own = Counts(torch.tensor(4.0), torch.tensor(50.0))
    mean = weigh(parts, PretrainConfig(), own=own, total=own)
    total = weigh(parts, PretrainConfig(utterance_reduction="sum"), own=own, total=own)
    assert float(mean) == 100 / 50 + 8 / 4
    assert float(total) == 100 / 50 + 8


@pytest.mark.parametrize("name", LOSSES)
def test_utterance_losses_are_zero_at_the_target_and_reach_what_they_compare(name: str) -> None:
    tokens = torch.randn(3, 1 if name == "token" else 5, 8, requires_grad=True)
    frames = torch.randn(3, 6, 8, requires_grad=True)
    predicted = frames.mean(dim=1) if name == "global" else tokens.mean(dim=1)
    loss = UTTERANCE_LOSSES[name](tokens, frames, predicted.detach())
    assert loss.shape == (3,) and loss.abs().max() == 0
    UTTERANCE_LOSSES[name](tokens, frames, predicted.detach() + 1).sum().backward()
    reached = frames if name == "global" else tokens
    other = tokens if name == "global" else frames
    assert reached.grad is not None and reached.grad.abs().max() > 0
    assert other.grad is None


def test_the_frame_loss_counts_hidden_frames_only() -> None:
    prediction, target = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    hidden = torch.tensor([[True, False, True, False, False], [False] * 4 + [True]])
    by_hand = ((prediction - target)[hidden] ** 2).sum() / math.sqrt(8)
    assert float(frame_loss(prediction, target, hidden).sum()) == pytest.approx(float(by_hand))
    everywhere = frame_loss(prediction, target, torch.ones(2, 5, dtype=torch.bool))
    assert float(everywhere.sum()) > float(by_hand)


def test_the_spread_is_the_references() -> None:
    values = torch.randn(3, 4, 6)
    keep = torch.tensor([[True, True, False, True]] * 3)
    by_hand = (values[keep].var(dim=0) + 1e-6).sqrt().mean()
    assert float(spread(values, keep)) == pytest.approx(float(by_hand), rel=1e-5)
