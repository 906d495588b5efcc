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


class Objective(NamedTuple):
    """The losses of one micro-batch before they are weighed, and the collapse gauges."""

    frame: Tensor
    """sum over rows and hidden frames"""
    utterance: Tensor
    """sum over rows"""
    target_spread: Tensor
    """of the labels' numbers where pseudo-labels are predicted: zero only if all are one"""
    prediction_spread: Tensor
    cluster_accuracy: Tensor | None = None
    """where pseudo-labels are predicted"""


def objective(
    student: nn.Module, teacher: Teacher | ClusterTeacher, batch: Batch, config: PretrainConfig
) -> Objective:
    """Student and teacher on one micro-batch, and both losses between them."""
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
    accuracy = None
    if config.clusters:
        labelled = (output.prediction, frame_target, hidden, config.clusters)
        frame, accuracy = cluster_loss(*labelled), cluster_accuracy(*labelled)
    else:
        frame = frame_loss(output.prediction, frame_target, hidden)
    return Objective(
        frame.sum(),
        utterance,
        spread(frame_target, hidden),
        spread(output.prediction.detach(), hidden),
        accuracy,
    )


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
    """The scalar to minimize: one micro-batch's share of the update's loss.

    Args:
        parts: the micro-batch's sums
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
        with contextlib.nullcontext() if is_last else accelerator.no_sync(student):
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                parts = objective(student, state.teacher, batch.to(device), config)
            loss = weigh(parts, config, own=own, total=total)
            # DDP averages gradients over processes, while the counts are already those of all.
            (loss * processes).backward()
        history.append(
            {
                "loss": loss.detach() * processes * len(batches),
                "frame_loss": parts.frame.detach() / total.hidden_frames * processes * len(batches),
                "utterance_loss": parts.utterance.detach() / total.rows * processes * len(batches),
                "target_spread": parts.target_spread,
                "prediction_spread": parts.prediction_spread,
            }
        )
        if parts.cluster_accuracy is not None:
            history[-1]["cluster_accuracy"] = parts.cluster_accuracy
    metrics = {k: torch.stack([h[k] for h in history]).mean() for k in history[0]}
    metrics |= _finish(state, student, config)
    state.micro_batches += len(batches) * processes
    return metrics


def computes_in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether a run casts to bfloat16; "auto" asks the device whether it computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Without such instructions a processor is slower in bfloat16 than in float32.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _finish(state: TrainState, student: nn.Module, config: PretrainConfig) -> dict[str, Tensor]:
    """Clip, step, and let the teacher follow; return rate, decay and gradient norms."""
    rate = learning_rate(
        state.updates,
        peak=config.peak_lr,
        warmup_updates=config.warmup_updates,
        max_updates=config.max_updates,
    )
    for parameter in student.parameters():
        if parameter.grad is None:  # of a block that no micro-batch went through
            parameter.grad = torch.zeros_like(parameter)
    norms = gradient_norms(state.student)
    if config.clip_norm:
        nn.utils.clip_grads_with_norm_(
            student.parameters(), config.clip_norm, norms["gradient_norm"]
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
