"""The training loop: the one place where student, teacher, losses, masks and data meet.

B clips, K masks a clip, R = B * K rows, T frames, V visible frames, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from emotion2vec.atomic import atomic_path
from emotion2vec.corpus import Corpus, Data, Skipped
from emotion2vec.model import Emotion2vec, Emotion2vecStudent
from emotion2vec.pretraining.checkpoint import TrainState, load_checkpoint, save_checkpoint
from emotion2vec.pretraining.clusters import ClusterTeacher, check_alike, fit_clusters
from emotion2vec.pretraining.config import COLD, PretrainConfig, write_config
from emotion2vec.pretraining.data import Batch, Batches, batch_loader, scan
from emotion2vec.pretraining.distributed import Stop, gather, split
from emotion2vec.pretraining.gauges import ranks
from emotion2vec.pretraining.health import note_run
from emotion2vec.pretraining.monitor import CollapseError, Monitor, Pace, Probe
from emotion2vec.pretraining.start import start_from
from emotion2vec.pretraining.step import update
from emotion2vec.pretraining.teacher import Teacher
from emotion2vec.weights import write_folder

CLUSTERS_NAME = "clusters"
CHECKPOINT_NAME = "last.safetensors"
COLLAPSED_NAME = "collapsed.safetensors"
INDEX_NAME = "index.safetensors"

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, while one reads headers, say, before the run ends."""


class PretrainResult(NamedTuple):
    """What `pretrain` made."""

    model: Path
    """folder that `Emotion2vec.from_pretrained` reads"""
    skipped: int
    """recordings left out; `skipped.jsonl` says why"""
    is_main: bool
    """whether this process is the one that writes"""
    stopped_by: int = 0
    """the signal that ended the run early, its state saved; 0 for none"""
    processes: int = 1
    """how many have trained together"""


def pretrain(
    config: PretrainConfig,
    data: Data,
    out: str | Path,
    *,
    resume: bool = False,
    probe: Probe | None = None,
    probe_every: int = 500,
    progress: bool = True,
) -> PretrainResult:
    """Pre-train an encoder on unlabelled recordings and save it in `out/final`.

    `out` also gets `config.toml` (as run), `index.safetensors` (where recordings stand), metrics,
    `skipped.jsonl` where recordings were left out, `init.json` where the run started from a
    checkpoint, and `last.safetensors`, from which a killed run resumes to the same weights.
    SIGTERM and Ctrl-C end a run after its update, saved.

    Args:
        config: settings of the run
        data: what to train on, as in `corpus.open_corpus`; one process reads it for all
        out: folder of the run
        resume: go on from `out/last.safetensors`
        probe: looks at the encoder in one process; see `Monitor.look`, `probing.quick.QuickProbe`
        probe_every: updates between two looks
        progress: show a bar

    Raises:
        FileExistsError: if `out` holds a run and `resume` is false
        ValueError: if nothing can be trained on, or a checkpoint does not belong to the run
        CollapseError: if the representation collapses; the state is saved before, in
            `out/collapsed.safetensors`, and `out/last.safetensors` stays the last good one
        OSError: if `out` cannot be written

    Source: paper section 3.2 and 4.1.
    """
    out = Path(out)
    accelerator = Accelerator(
        mixed_precision="no",  # `update` casts by itself, in plain sight
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    _check_start(config, accelerator, out, resume=resume, probes=probe is not None)
    state = new_state(config, accelerator.device)
    started = start_from(state, config.init) if config.init != COLD and not resume else None
    corpus = _index(data, config, accelerator, out, progress)
    _complete(state, config, corpus, accelerator, out, resume=resume)
    monitor, is_main = None, accelerator.is_main_process
    if is_main:
        with atomic_path(out / "config.toml") as path:
            write_config(config, path)
        if started:
            started.note(out)
        corpus.save(out / INDEX_NAME)
        note_run(out, accelerator, corpus.lengths)
        monitor = Monitor(out, state.updates, config.max_updates, progress, probe, probe_every)
        monitor.skip(corpus.skipped)
    try:
        with Stop() as stop:
            stopped_by = _train(state, config, corpus, accelerator, monitor, stop, out)
    finally:
        if monitor:
            monitor.close()
    if not stopped_by:
        weights = gather(state.student.encoder.state_dict(), keep=is_main)
        if is_main:
            write_folder(config.model, weights, out / "final")
    accelerator.wait_for_everyone()
    skipped = len(monitor.skipped) if monitor else 0
    return PretrainResult(out / "final", skipped, is_main, stopped_by, accelerator.num_processes)


def _check_start(
    config: PretrainConfig, accelerator: Accelerator, out: Path, *, resume: bool, probes: bool
) -> None:
    """Refuse to begin over a run, and what only ends in waiting."""
    if (out / CHECKPOINT_NAME).exists() and not resume:
        raise FileExistsError(
            f"{out} already holds a run; add --resume to go on with it, or choose another folder."
        )
    if probes and config.sharding == "full" and accelerator.num_processes > 1:
        raise ValueError(
            'a probe needs the whole encoder in one process, but sharding is "full"; leave --probe '
            "out, and probe what the run saves."
        )


def _complete(
    state: TrainState,
    config: PretrainConfig,
    corpus: Corpus,
    accelerator: Accelerator,
    out: Path,
    *,
    resume: bool,
) -> None:
    """Give the state its pseudo-labels, keep this process's part of it, go to the checkpoint."""
    if config.clusters:
        if accelerator.is_main_process and not resume:
            _label(state.student.encoder, config, corpus).save(out / CLUSTERS_NAME)
        accelerator.wait_for_everyone()
        state.teacher = ClusterTeacher.load(
            out / CLUSTERS_NAME, counts=config.clusters, layer=config.cluster_layer
        ).to(accelerator.device)
    if config.sharding == "full" and accelerator.num_processes > 1:
        split(state.student, state.teacher, accelerator.device)
        state.optimizer = _optimizer(state.student, config)  # of the parts
    if resume:
        load_checkpoint(state, config, corpus.digest, out / CHECKPOINT_NAME)


def _index(
    data: Data, config: PretrainConfig, accelerator: Accelerator, out: Path, progress: bool
) -> Corpus:
    """Return in all processes what the main one finds; raise in all what it raises."""
    found: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            found = [scan(data, config, saved=out / INDEX_NAME, progress=progress)]
        except (OSError, ValueError, ImportError) as error:
            found = [error]
    broadcast_object_list(found)
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


def _label(own: Emotion2vec, config: PretrainConfig, corpus: Corpus) -> ClusterTeacher:
    """Return pseudo-labels for the corpus, from the features of `config.cluster_model`."""
    device = next(own.parameters()).device
    encoder = Emotion2vec.from_pretrained(config.cluster_model) if config.cluster_model else own
    check_alike(encoder.config, config.model)
    batches = Batches(corpus, config)
    waveforms = (batches[number].waveform for number in range(batches.batches_per_epoch))
    return fit_clusters(
        encoder.to(device),
        (waveform for waveform in waveforms if len(waveform)),
        counts=config.clusters,
        layer=config.cluster_layer,
        num_frames=config.cluster_frames,
        seed=config.seed,
    )


def _train(
    state: TrainState,
    config: PretrainConfig,
    corpus: Corpus,
    accelerator: Accelerator,
    monitor: Monitor | None,
    stop: Stop,
    out: Path,
) -> int:
    """Run updates to the last, or to a signal, which is returned (else 0); log and save."""
    batches = Batches(corpus, config)
    loader = batch_loader(
        batches,
        first=state.micro_batches,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        workers=config.num_workers,
    )
    is_split = isinstance(state.student, FSDPModule)  # then there is no DDP around it
    student = accelerator.prepare_model(state.student, evaluation_mode=is_split)
    skipped: list[Skipped] = []
    if monitor and not state.updates:
        monitor.look(state.student.encoder, 0)
    pace = Pace(config, accelerator.num_processes)

    def save(name: str) -> None:
        save_checkpoint(state, config, corpus.digest, out / name, write=monitor is not None)

    while state.updates < config.max_updates:
        micro_batches = [_check(next(loader)) for _ in range(config.accumulate)]
        metrics = update(state, student, micro_batches, config, accelerator)
        pace.count(micro_batches)
        skipped += [item for batch in micro_batches for item in batch.skipped]
        if monitor:
            monitor.bar.update()
            pace.pause(monitor.look(state.student.encoder, state.updates))
        last = state.updates == config.max_updates
        stopped_by = 0 if last else stop.agreed()
        logs, saves = (
            last or state.updates % n == 0 for n in (config.log_every, config.save_every)
        )
        if not logs and not saves and not stopped_by:
            continue
        if logs:
            seen = micro_batches[-1].to(accelerator.device)
            metrics |= ranks(student, state.teacher, seen.waveform, seen.visible)
        values = _mean(metrics, accelerator)
        skipped = gather_object(skipped)
        if monitor:
            monitor.skip(skipped)
        skipped = []
        if logs:
            values |= pace.read(config.max_updates - state.updates)
            epoch = state.micro_batches / batches.batches_per_epoch
            if monitor:
                monitor.log({"update": state.updates, "epoch": epoch, **values})
        problem = collapse(values, state.updates, config)
        if problem:  # checked before every save: the last checkpoint is never a broken one
            save(COLLAPSED_NAME)
            accelerator.wait_for_everyone()
            raise CollapseError(
                f"{problem} The state is in {out / COLLAPSED_NAME}; start a new run."
            )
        if saves or stopped_by:
            save(CHECKPOINT_NAME)
        if stopped_by:
            return stopped_by
    return 0


def _check(batch: Batch) -> Batch:
    """Return the batch, unless it is empty because nothing could be read any more."""
    if not len(batch.waveform):
        raise ValueError(
            f"no recording can be read any more: {batch.skipped[0].error}; "
            "bring the recordings back, then --resume."
        )
    return batch


def new_state(config: PretrainConfig, device: torch.device | str = "cpu") -> TrainState:
    """Student, teacher and optimizer at update 0; weights drawn from `config.seed`.

    >>> from emotion2vec import Emotion2vecConfig
    >>> tiny = Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7, decoder_dim=32)
    >>> new_state(PretrainConfig(model=tiny)).updates
    0
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        student = Emotion2vecStudent(config.model, sum(config.clusters) or None)
        student.to(device).train()
    student.encoder.enable_gradient_checkpointing(config.gradient_checkpointing)
    teacher = Teacher(
        student.encoder.context,
        top_k=config.top_k,
        utterance_target=config.utterance_target,
    )
    return TrainState(student, teacher, _optimizer(student, config))


def _optimizer(student: Emotion2vecStudent, config: PretrainConfig) -> torch.optim.Optimizer:
    """Return AdamW; its rate is set before every update."""
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    for name, parameter in student.named_parameters():
        is_weight = parameter.ndim > 1 and not name.endswith(("alibi_scale", "utterance_tokens"))
        (decayed if is_weight or config.decay == "all" else plain).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)


def collapse(metrics: Mapping[str, float], updates: int, config: PretrainConfig) -> str:
    """What is wrong with the representation and what to try; empty where all is well.

    Source: data2vec 2.0 stops after 5000 updates if the target's spread is under 0.1 or the
    prediction's under 0.01.

    >>> bad = {"loss": 1, "gradient_norm": 1, "target_spread": 0.01, "prediction_spread": 0.5}
    >>> collapse(bad, 5000, PretrainConfig()).split(";")[0]
    'the target spread is 0.0100 at update 5000, under the floor of 0.1'
    """
    for name in ("loss", "gradient_norm"):
        if not math.isfinite(metrics[name]):
            return (
                f"the {name} is {metrics[name]} at update {updates}; lower peak_lr, set "
                "clip_norm=1, or compute with precision=fp32."
            )
    if updates < config.collapse_after:
        return ""
    for name in ("target", "prediction"):
        value, floor = metrics[f"{name}_spread"], getattr(config, f"min_{name}_spread")
        if value < floor:
            return (
                f"the {name} spread is {value:.4f} at update {updates}, under the floor of "
                f"{floor}; the representation has collapsed: lower peak_lr or utterance_weight, "
                "lengthen warmup_updates, bring ema_start nearer to 1, or mask less."
            )
    return ""


def _mean(metrics: Mapping[str, Tensor], accelerator: Accelerator) -> dict[str, float]:
    """Return each metric's mean over processes."""
    values = torch.stack([value.float().to(accelerator.device) for value in metrics.values()])
    means = accelerator.reduce(values, "mean").tolist()
    return dict(zip(metrics, means, strict=True))
