"""Targets, losses, gradients, updates, masks and schedules against the reference's."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PARITY, Golden, load_golden, relative_error
from torch import Tensor

from emotion2vec import Emotion2vecStudent
from emotion2vec.convert import config_from_reference, weights_from_reference
from emotion2vec.losses import UTTERANCE_LOSSES, frame_loss, spread
from emotion2vec.pretrained import load_weights
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.data import Batch
from emotion2vec.pretraining.masking import block_mask, span_mask, visible_indices
from emotion2vec.pretraining.schedules import ema_decay, learning_rate
from emotion2vec.pretraining.step import Counts, Objective, count, objective, weigh
from emotion2vec.pretraining.teacher import Teacher

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
        ours = weights_from_reference(weights, self.model_config)
        return {k if k.startswith("decoder.") else f"encoder.{k}": v for k, v in ours.items()}

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
    hidden = golden["mask_A"]
    rows = targets.frames.repeat_interleave(masks, dim=0)
    for name, ours in (
        ("local_features", output.features),
        ("targets", targets.frames),
        ("decoder_out_all", output.prediction),
        ("pred_masked", output.prediction[hidden]),
        ("y_masked", rows[hidden]),
        ("enc_x", torch.cat([output.tokens, output.frames], dim=1)),
    ):
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
    assert float(parts.target_spread) == pytest.approx(facts["target_var"], rel=1e-5)
    assert float(parts.prediction_spread) == pytest.approx(facts["pred_var"], rel=1e-5)


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


def test_the_trajectory_is_compared_where_the_issue_asks() -> None:
    names = load_golden("pretrain/trajectory").tensors
    for run in RUNS:
        for part in ("u1/ema", "u3/ema", "u5/student"):
            assert any(name.startswith(f"{run}/{part}") for name in names)


def test_the_reductions_differ_by_the_number_of_rows() -> None:
    parts = Objective(torch.tensor(100.0), torch.tensor(8.0), torch.tensor(1.0), torch.tensor(1.0))
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


# Masks, over as many draws as it takes for the tolerance.


def run_lengths(mask: np.ndarray[Any, np.dtype[np.bool_]]) -> list[int]:
    lengths = []
    for row in mask:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        lengths += (edges[1::2] - edges[::2]).tolist()
    return lengths


MASKS = json.loads((PARITY / "masks" / "masks.json").read_text())


@pytest.mark.parametrize("frames", [50, 200, 499, 1500])
@pytest.mark.parametrize(
    "entry, masker, rows, adjust",
    [
        ("B_compute_block_mask_1d_clone8_adjust.05", block_mask, 8, 0.05),
        ("B_same_with_adjust_0_500calls", block_mask, 8, 0.0),
        ("A_compute_mask_indices_B16", span_mask, 16, 0.0),
        ("A_compute_mask_indices_B16_clone8_rows128_200calls", span_mask, 128, 0.0),
        ("A_single_row_ie_before_equalisation", span_mask, 1, 0.0),
    ],
)
def test_masks_are_distributed_as_the_references(
    entry: str, masker: Any, rows: int, adjust: float, frames: int
) -> None:
    facts = MASKS[entry][str(frames)]
    calls = max(30, 2400 // rows)
    generator = np.random.default_rng(7)
    drawn = [
        masker(rows, frames, share=0.5, span=5, adjust=adjust, generator=generator)
        for _ in range(calls)
    ]
    assert all(len(set(mask.sum(axis=1))) == 1 for mask in drawn)
    shares = [mask.mean() for mask in drawn]
    standard_error = facts["std_of_call_fraction"] / math.sqrt(calls)
    assert np.mean(shares) == pytest.approx(
        facts["mean_masked_fraction"], abs=4 * standard_error + 1e-9
    )
    lengths = [length for mask in drawn for length in run_lengths(mask)]
    assert np.mean(lengths) == pytest.approx(facts["mean_span_length"], rel=0.05)
    for length in ("1", "5"):
        share = np.mean(np.array(lengths) == int(length))
        assert share == pytest.approx(
            facts["span_length_distribution"].get(length, 0), abs=0.025
        ), length
    last = np.mean([mask[:, -1].mean() for mask in drawn])
    assert (last == 0) == (masker is span_mask)


@pytest.mark.parametrize("frames", [3, 4, 5, 6, 7, 8, 10, 12, 15])
def test_masks_of_short_clips(frames: int) -> None:
    facts = MASKS["short_sequences"][str(frames)]
    generator = np.random.default_rng(0)
    options: dict[str, Any] = {"share": 0.5, "span": 5, "generator": generator}
    block = block_mask(4, frames, adjust=0.05, **options)
    assert block.mean() == pytest.approx(facts["B_mean_fraction"], abs=1e-6)
    if facts["A_ok"]:
        rows = span_mask(16, frames, **options)  # as many as the reference drew at once
        assert rows.mean() == pytest.approx(facts["A_mean_fraction"])
    else:
        with pytest.raises(ValueError, match="all would be hidden"):
            span_mask(1, frames, **options)


def test_masks_follow_their_seed_alone() -> None:
    def draw(seed: int) -> Any:
        generator = np.random.default_rng(seed)
        return block_mask(4, 99, share=0.5, span=5, adjust=0.05, generator=generator)

    np.random.seed(0)  # noqa: NPY002 - the global generator must not matter
    first = draw(1)
    np.random.seed(1)  # noqa: NPY002
    assert (first == draw(1)).all() and (first != draw(2)).any()


# Schedules.

SCHEDULES = json.loads((PARITY / "schedules" / "schedules.json").read_text())


def test_the_learning_rate_is_the_references() -> None:
    for entry in ("lr_cosine", "lr_cosine_with_min_lr"):
        config = SCHEDULES[entry]["config"]
        start = config["warmup_init_lr"]
        for updates, expected in SCHEDULES[entry]["lr_at_n"].items():
            ours = learning_rate(
                int(updates),
                peak=config["lr"],
                warmup_updates=config["warmup_updates"],
                max_updates=config["max_update"],
                floor=config["min_lr"],
                start=start if isinstance(start, float) else None,
            )
            assert ours == pytest.approx(expected, rel=1e-9, abs=1e-18), (entry, updates)


def test_the_ema_decay_is_the_references() -> None:
    for entry in ("ema_decay", "ema_decay_plus_large_yaml"):
        facts = SCHEDULES[entry]
        config = facts.get("config", facts)
        for updates, expected in facts["decay_at_n"].items():
            ours = ema_decay(
                int(updates),
                start=config["ema_decay"],
                end=config["ema_end_decay"],
                anneal_updates=config["ema_anneal_end_step"],
            )
            assert ours == pytest.approx(expected, rel=1e-12), (entry, updates)
