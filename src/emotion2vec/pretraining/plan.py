"""What a run will cost, before it runs: steps, memory, and hours from a few timed updates."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.corpus import Corpus
from emotion2vec.encoding import computes_in_bfloat16
from emotion2vec.pretraining.clusters import ClusterTeacher
from emotion2vec.pretraining.config import PretrainConfig
from emotion2vec.pretraining.costs import activations, flops, memory, parameters
from emotion2vec.pretraining.data import Batch, Batches
from emotion2vec.pretraining.loop import new_state
from emotion2vec.pretraining.step import clips_at_once, update

_TIMED = {True: 2, False: 10}
"""Updates that are timed, on a CPU and elsewhere."""


@dataclass(frozen=True)
class Measured:
    """What a few updates took on a device."""

    device: str
    precision: str
    seconds: float
    """of an update with one micro-batch of `audio_seconds`"""
    audio_seconds: float
    flops_per_second: float
    matmul_flops_per_second: float
    """of one large product in the same precision, beside it"""
    peak_bytes: int | None
    """above what the process held before; None where it cannot be told"""


@dataclass(frozen=True)
class Plan:
    """The cost of a run; numbers of FLOPs and updates are of all processes together."""

    parameters: dict[str, int]
    """of the student; of them encoder and decoder; of the teacher"""
    clips: int
    left_out: int
    hours: float
    """of audio in an epoch"""
    updates_per_epoch: float
    max_updates: int
    epochs: float
    flops: dict[str, float]
    """of an update, mean over an epoch, by part"""
    largest_batch: tuple[int, float]
    """clips and seconds of the micro-batch that takes most memory"""
    memory: dict[str, int]
    """bytes on each device, by part"""
    measured: Measured | None = None
    expected_hours: float | None = None
    """of the whole run, from the measured rate"""

    def to_dict(self) -> dict[str, object]:
        """All fields as plain data."""
        return asdict(self)


def make_plan(
    config: PretrainConfig,
    corpus: Corpus,
    *,
    device: torch.device,
    processes: int = 1,
    measured: Measured | None = None,
) -> Plan:
    """The cost of a run on a corpus.

    Args:
        config: settings of the run
        corpus: what it trains on
        device: what it runs on
        processes: how many run it together
        measured: from `measure`, on one of its devices; without it no hours are expected
    """
    batches = Batches(corpus, config)
    sizes = Counter(batches.sizes())
    together = config.accumulate * processes
    an_update: Counter[str] = Counter()
    for (clips, samples), number in sizes.items():
        for part, operations in flops(config, clips, samples).items():
            an_update[part] += operations * number * together
    mean = {part: total / batches.batches_per_epoch for part, total in an_update.items()}
    updates = batches.batches_per_epoch / together
    clips, samples = _largest(config, sizes, device)
    hours = None
    if measured:
        rate = measured.flops_per_second * processes
        hours = sum(mean.values()) * config.max_updates / rate / 3600
    return Plan(
        parameters=parameters(config),
        clips=len(corpus.lengths),
        left_out=len(corpus.skipped),
        hours=sum(b * s * n for (b, s), n in sizes.items()) / SAMPLE_RATE / 3600,
        updates_per_epoch=updates,
        max_updates=config.max_updates,
        epochs=config.max_updates / updates,
        flops=mean,
        largest_batch=(clips, samples / SAMPLE_RATE),
        memory=_memory_a_device(config, clips, samples, device, processes),
        measured=measured,
        expected_hours=hours,
    )


def _memory_a_device(
    config: PretrainConfig, clips: int, samples: int, device: torch.device, processes: int
) -> dict[str, int]:
    """Return the memory of such a micro-batch; what is sharded is divided over processes."""
    parts = memory(
        config,
        clips,
        samples,
        at_once=_at_once(config, clips, samples, device),
        bfloat16=computes_in_bfloat16(config.precision, device),
    )
    shares = processes if config.sharding == "full" else 1
    return {k: v if k == "activations" else v // shares for k, v in parts.items()}


def _largest(
    config: PretrainConfig, sizes: Iterable[tuple[int, int]], device: torch.device
) -> tuple[int, int]:
    """Return clips and samples of the micro-batch that takes most memory."""

    def held(size: tuple[int, int]) -> int:
        clips, samples = size
        return activations(config, *size, at_once=_at_once(config, clips, samples, device))

    return max(sizes, key=held)


def _at_once(config: PretrainConfig, clips: int, samples: int, device: torch.device) -> int:
    """Return how many clips of such a micro-batch go through the step together."""
    frames = config.model.num_frames(samples)
    visible = frames - int(frames * config.mask_share)
    with torch.device("meta"):  # shapes without memory
        batch = Batch(
            torch.empty(clips, samples), torch.empty(clips, config.num_masks, visible), ()
        )
    return clips_at_once(batch, config, device)


def measure(config: PretrainConfig, corpus: Corpus) -> Measured:
    """Time updates on the run's own first micro-batches, on this process's device.

    The largest micro-batch of an epoch goes first and is not timed. Loading is not timed either. No
    block is dropped, and an update has one micro-batch.

    Raises:
        ValueError: if a whole epoch holds nothing that can be read
        torch.OutOfMemoryError: if the largest micro-batch does not fit the device
    """
    accelerator = Accelerator(mixed_precision="no")
    device = accelerator.device
    config = replace(config, accumulate=1, block_drop=0.0)
    batches = Batches(corpus, config)
    sizes = batches.sizes()
    peak = _watch_memory(device)
    state = new_state(config, device)
    if config.clusters:  # where the centres lie costs nothing
        centres = torch.randn(sum(config.clusters), config.model.embed_dim, device=device)
        state.teacher = ClusterTeacher(
            state.student.encoder, centres, counts=config.clusters, layer=config.cluster_layer
        )
    seconds = audio = operations = 0.0
    numbers = [
        sizes.index(_largest(config, set(sizes), device)),
        *range(_TIMED[device.type == "cpu"]),
    ]
    for place, number in enumerate(numbers):
        batch = batches[number]
        if not len(batch.waveform):
            raise ValueError(f"no recording can be read any more: {batch.skipped[0].error}")
        _wait(device)
        begin = time.perf_counter()
        update(state, state.student, [batch], config, accelerator)
        _wait(device)
        if place:
            seconds += time.perf_counter() - begin
            audio += batch.waveform.numel() / SAMPLE_RATE
            operations += sum(flops(config, *batch.waveform.shape).values())
    bfloat16 = computes_in_bfloat16(config.precision, device)
    timed = len(numbers) - 1
    return Measured(
        device=str(device),
        precision="bf16" if bfloat16 else "fp32",
        seconds=seconds / timed,
        audio_seconds=audio / timed,
        flops_per_second=operations / seconds,
        matmul_flops_per_second=matmul_rate(device, torch.bfloat16 if bfloat16 else torch.float32),
        peak_bytes=peak(),
    )


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of one large matrix product, the best of a few."""
    size = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        _wait(device)
        begin = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _watch_memory(device: torch.device) -> Callable[[], int | None]:
    """Return a function that tells the peak since now, above what is held now, in bytes."""
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return lambda: torch.cuda.max_memory_allocated(device) - held
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if device.type != "cpu" or not reset.exists():
        return lambda: None

    def read(name: str) -> int:
        return int(status.read_text().split(f"{name}:")[1].split()[0]) * 1024

    reset.write_text("5")  # the peak starts anew
    held = read("VmRSS")
    return lambda: read("VmHWM") - held


def table(plan: Plan) -> str:
    """The plan for people, a line for each question."""
    counts, total = plan.parameters, sum(plan.flops.values())
    clips, seconds = plan.largest_batch
    lines = [
        ("parameters", f"{counts['student']:,}: encoder {counts['encoder']:,}, decoder "
                       f"{counts['decoder']:,}; teacher {counts['teacher']:,}"),
        ("data", f"{plan.clips:,} clips, {plan.hours:,.2f} h an epoch; {plan.left_out:,} left out"),
        ("updates", f"{plan.updates_per_epoch:,.1f} an epoch; {plan.max_updates:,} are "
                    f"{plan.epochs:,.1f} epochs"),
        ("FLOPs", f"{total / 1e12:,.3f} T an update: {_shares(plan.flops)}"),
        ("memory", f"{sum(plan.memory.values()) / 1e9:.2f} GB a device, estimated for {clips} "
                   f"clips of {seconds:.1f} s: {_shares(plan.memory)}"),
    ]  # fmt: skip
    found = plan.measured
    if found:
        peak = "" if found.peak_bytes is None else f"; peak {found.peak_bytes / 1e9:.2f} GB"
        share = found.flops_per_second / found.matmul_flops_per_second
        lines += [
            ("measured", f"{found.device}, {found.precision}: {found.seconds:.3g} s for "
                         f"{found.audio_seconds:.1f} s of audio, {_rate(found.flops_per_second)}, "
                         f"{share:.0%} of a matrix product's "
                         f"{_rate(found.matmul_flops_per_second)}{peak}"),
            ("expected", f"{plan.expected_hours:,.2f} h for {plan.max_updates:,} updates, loading "
                         "aside"),
        ]  # fmt: skip
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def _shares(parts: Mapping[str, float]) -> str:
    total = sum(parts.values())
    return ", ".join(f"{name} {value / total:.0%}" for name, value in parts.items())


def _rate(operations: float) -> str:
    unit = 1e12 if operations >= 1e12 else 1e9
    return f"{operations / unit:,.1f} {'T' if unit == 1e12 else 'G'}FLOP/s"
