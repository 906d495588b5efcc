"""One update: student, teacher and losses on a few micro-batches.

B clips, K masks a clip, R = B * K rows, T frames, V visible frames, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from emotion2vec.context import hidden_mask
from emotion2vec.encoding import computes_in_bfloat16
from emotion2vec.losses import (
    UTTERANCE_LOSSES,
    cluster_accuracy,
    cluster_loss,
    frame_loss,
    spread,
)
from emotion2vec.pretraining.checkpoint import TrainState
from emotion2vec.pretraining.clusters import ClusterTeacher
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.data import Batch
from emotion2vec.pretraining.gauges import gradient_norms
from emotion2vec.pretraining.schedules import ema_decay, learning_rate
from emotion2vec.pretraining.teacher import Teacher

_WIDEST_ACTIVATION = 16e6
"""Bytes; blocks of over 32 MB are fresh memory each time, which costs as much as filling them."""


class Objective(NamedTuple):
    """The losses of some clips before they are weighed, and what the gauges look at."""

    frame: Tensor
    """sum over rows and hidden frames"""
    utterance: Tensor
    """sum over rows"""
    targets: Tensor
    """(R, T, D), or (R, T, cluster counts) where pseudo-labels are predicted"""
    prediction: Tensor
    """(R, T, D), or the logits of all clusters, side by side"""
    hidden: Tensor
    """(R, T), True at frames that the student did not see"""


def objective(
    student: nn.Module, teacher: Teacher | ClusterTeacher, batch: Batch, config: PretrainConfig
) -> Objective:
    """Student and teacher on some clips, and both losses between them."""
    device, num_masks = batch.waveform.device, batch.visible.shape[1]
    rows = len(batch.waveform) * num_masks
    num_frames = config.model.num_frames(batch.waveform.shape[1])
    noise = torch.randn(rows, num_frames, config.model.embed_dim, device=device)
    blocks = config.model.prenet_depth + config.model.depth
    keep_blocks = torch.rand(blocks) >= config.block_drop  # drawn where looking at it is free
    output = student(
        batch.waveform,
        batch.visible,
        noise=config.mask_noise_std * noise,
        keep_blocks=keep_blocks if config.block_drop else None,
    )
    # A frozen encoder has its own convolutions; the teacher shares the student's.
    targets = teacher(batch.waveform if config.clusters else output.features.detach())
    frame_target = targets.frames.repeat_interleave(num_masks, dim=0)  # (R, T, D), or labels
    utterance_target = targets.utterance.repeat_interleave(num_masks, dim=0)  # (R, D)
    hidden = hidden_mask(batch.visible.flatten(0, 1), num_frames)  # (R, T)

    utterance = torch.zeros((), device=device)
    if config.utterance_loss != "none":
        loss = UTTERANCE_LOSSES[config.utterance_loss]
        utterance = loss(output.tokens, output.frames, utterance_target).sum()
    if config.clusters:
        frame = cluster_loss(output.prediction, frame_target, hidden, config.clusters)
    else:
        frame = frame_loss(output.prediction, frame_target, hidden)
    return Objective(frame.sum(), utterance, frame_target, output.prediction.detach(), hidden)


class Counts(NamedTuple):
    """What losses are averaged over: scalars, for a micro-batch or a whole update."""

    rows: Tensor
    hidden_frames: Tensor


def count(batch: Batch, config: PretrainConfig) -> Counts:
    """Rows and hidden frames of one micro-batch, from its shapes alone."""
    clips, num_masks, num_visible = batch.visible.shape
    hidden = config.model.num_frames(batch.waveform.shape[1]) - num_visible
    rows = clips * num_masks
    return Counts(torch.tensor(float(rows)), torch.tensor(float(rows * hidden)))


def weigh(parts: Objective, config: PretrainConfig, *, own: Counts, total: Counts) -> Tensor:
    """The scalar to minimize: the share that some clips of a micro-batch have in the update's loss.

    Args:
        parts: the clips' sums
        config: weights and reduction
        own: counts of the micro-batch
        total: counts of the update, all micro-batches of all processes together

    Source: paper equation 9. The reduction "sum" is what the reference optimizes: fairseq
    multiplies the utterance term by the hidden frames and divides the whole by them.
    """
    frame = parts.frame / total.hidden_frames
    if config.utterance_reduction == "mean":
        utterance = parts.utterance / total.rows
    else:
        utterance = parts.utterance * own.hidden_frames / total.hidden_frames
    return config.frame_weight * frame + config.utterance_weight * utterance


def update(
    state: TrainState,
    student: nn.Module,
    batches: Sequence[Batch],
    config: PretrainConfig,
    accelerator: Accelerator,
) -> dict[str, Tensor]:
    """One update from this process's micro-batches; returns its metrics as scalars.

    Losses are this process's share times the number of processes: their mean over processes is
    the update's. `student` is `state.student`, wrapped where there are several processes.
    """
    device, processes = accelerator.device, accelerator.num_processes
    bfloat16 = computes_in_bfloat16(config.precision, device)
    counts = [count(batch, config) for batch in batches]
    sums = torch.stack([torch.stack(tuple(c)) for c in counts]).sum(dim=0).to(device)
    total = Counts(*accelerator.reduce(sums, "sum"))
    history = []
    for number, (batch, own) in enumerate(zip(batches, counts, strict=True)):
        is_last = number == len(batches) - 1
        # What is drawn follows from the micro-batch's place in the line: no matter which process
        # it meets, or whether the run was resumed.
        place = state.micro_batches + number * processes + accelerator.process_index
        torch.manual_seed(config.seed * 1_000_003 + place)
        found = []
        pieces = split(batch.to(device), clips_at_once(batch, config, device))
        for piece in pieces:
            waits = is_last and piece is pieces[-1]
            with contextlib.nullcontext() if waits else accelerator.no_sync(student):
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    parts = objective(student, state.teacher, piece, config)
                loss = weigh(parts, config, own=own, total=total)
                # DDP averages gradients over processes, while the counts are those of all.
                (loss * processes).backward()
            found.append((loss.detach(), Objective(*(part.detach() for part in parts))))
        history.append(_measure(found, config, total, processes * len(batches)))
    metrics = {k: torch.stack([h[k] for h in history]).mean() for k in history[0]}
    metrics |= finish(state, config)
    state.micro_batches += len(batches) * processes
    return metrics


def clips_at_once(batch: Batch, config: PretrainConfig, device: torch.device) -> int:
    """How many clips of a micro-batch go through student and teacher together.

    All of them on accelerators. On CPUs as many as keep the widest activation small: what is kept
    for the backward pass then is, too, and memory is used again while it is in the cache. The
    losses and gradients are the same, but for what is drawn.
    """
    if device.type != "cpu":
        return len(batch.waveform)
    _, num_masks, num_visible = batch.visible.shape
    rows = num_masks * (num_visible + config.model.num_utterance_tokens)
    width = config.model.embed_dim * config.model.mlp_ratio
    return max(1, int(_WIDEST_ACTIVATION / (4 * rows * width)))


def split(batch: Batch, clips: int) -> list[Batch]:
    """The micro-batch in pieces of at most so many clips.

    >>> batch = Batch(torch.zeros(3, 400), torch.zeros(3, 1, 1, dtype=torch.int64), ())
    >>> [len(piece.waveform) for piece in split(batch, 2)]
    [2, 1]
    """
    pairs = zip(batch.waveform.split(clips), batch.visible.split(clips), strict=True)
    return [Batch(waveform, visible, ()) for waveform, visible in pairs]


def _measure(
    found: Sequence[tuple[Tensor, Objective]], config: PretrainConfig, total: Counts, share: int
) -> dict[str, Tensor]:
    """Return the metrics of a micro-batch, the `share`-th part of the update, from its pieces."""
    losses, parts = zip(*found, strict=True)
    targets, prediction, hidden = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("targets", "prediction", "hidden")
    )
    metrics = {
        "loss": torch.stack(losses).sum() * share,
        "frame_loss": torch.stack([p.frame for p in parts]).sum() / total.hidden_frames * share,
        "utterance_loss": torch.stack([p.utterance for p in parts]).sum() / total.rows * share,
        "target_spread": spread(targets, hidden),
        "prediction_spread": spread(prediction, hidden),
    }
    if config.clusters:
        metrics["cluster_accuracy"] = cluster_accuracy(prediction, targets, hidden, config.clusters)
    return metrics


def finish(state: TrainState, config: PretrainConfig) -> dict[str, Tensor]:
    """Clip, step, and let the teacher follow; return rate, decay and gradient norms."""
    rate = learning_rate(
        state.updates,
        peak=config.peak_lr,
        warmup_updates=config.warmup_updates,
        max_updates=config.max_updates,
    )
    for parameter in state.student.parameters():
        if parameter.grad is None:  # of a block that no micro-batch went through
            parameter.grad = torch.zeros_like(parameter)
    norms = gradient_norms(state.student)
    if config.clip_norm:
        nn.utils.clip_grads_with_norm_(
            state.student.parameters(), config.clip_norm, norms["gradient_norm"]
        )
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.updates += 1
    tau = ema_decay(
        state.updates,
        start=config.ema_start,
        end=config.ema_end,
        anneal_updates=config.ema_anneal_updates,
    )
    state.teacher.follow(state.student.encoder.context, tau)
    return {"lr": torch.tensor(rate), "tau": torch.tensor(tau), **norms}
