"""`emotion2vec pretrain`."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from emotion2vec.commands.output import SOME_FAILED, Format

if TYPE_CHECKING:
    from emotion2vec.pretraining.config import PretrainConfig


@Parameter(name="*", group="Ablations, laid over the file; --set is laid over them")
@dataclass(frozen=True)
class Flags:
    """The paper's ablations, one flag each; `pretraining.ablations` says what they set."""

    init: str | None = None
    """What student and teacher start from: cold (drawn from the seed); a folder that emotion2vec
    convert or a run left, or its last.safetensors; a published .pt or folder of emotion2vec,
    data2vec 2.0 or data2vec 1; a name on a hub."""
    utterance_loss: Literal["token", "chunk", "global", "none"] | None = None
    """Utterance loss; token takes 1 utterance token and global none, as the paper has them, unless
    --tokens is given; chunk and none leave their number as it is."""
    tokens: int | None = None
    """Number of utterance tokens."""
    alpha: float | None = None
    """Weight of the utterance loss."""
    frame_weight: float | None = None
    """Weight of the frame loss; 0 for the utterance loss alone."""
    top_k: int | None = None
    """Last main blocks that targets are averaged over."""
    mask_span: int | None = None
    """Frames that a span hides."""
    mask_share: float | None = None
    """Part of the frames that is hidden, p of the paper."""
    masks: int | None = None
    """Masks a clip."""
    tau: str | None = None
    """The teacher's decay, START:END:UPDATES, such as 0.999:0.99999:20000."""
    depth: int | None = None
    """Main blocks; with fewer than top_k, targets are averaged over all, unless --top-k is
    given."""
    seed: int | None = None
    """Of weights, order, crops, masks and dropouts."""

    def given(self) -> dict[str, object]:
        """Those that were given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


NO_FLAGS = Flags()


def pretrain(
    config: Path,
    /,
    *,
    data: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path,
    resume: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    probe: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    probe_every: int = 500,
    flags: Flags = NO_FLAGS,
    plan: bool = False,
    no_measure: bool = False,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Pre-train an encoder on unlabelled speech.

    emotion2vec pretrain configs/pretrain_tiny.toml --data corpus/ --out runs/tiny

    emotion2vec pretrain configs/pretrain_tiny.toml --data corpus/ --out runs/token
    --utterance-loss token

    emotion2vec pretrain configs/pretrain_base.toml --data corpus/ --out runs/warm
    --init base_libri.pt --plan

    Writes OUT/final (the encoder), OUT/last.safetensors (to resume from), OUT/metrics.jsonl,
    OUT/tensorboard and, when it ends, OUT/report.html, which emotion2vec health OUT makes at any
    time. For several devices: torchrun --nproc-per-node 4 -m emotion2vec pretrain ...
    SIGTERM and Ctrl-C end a run after its update, with exit codes 143 and 130; --resume goes on.

    Parameters
    ----------
    config
        TOML file of settings.
    data
        Lists (.jsonl, .csv, wav.scp), folders, globs, audio files, folders or addresses of shards
        (s3://..., hf://...), or - for paths on standard input.
    out
        Folder of the run.
    resume
        Go on with the run in OUT.
    set_
        A setting laid over the file, such as --set peak_lr=1e-4 or --set model.depth=6.
    probe
        Labelled recordings with speakers, as for emotion2vec probe: a quick probe of the encoder in
        training, on held-out speakers, in OUT/probe.jsonl. It changes nothing of the run.
    probe_every
        Updates between two quick probes.
    plan
        Train nothing, write nothing: say what the run will cost.
    no_measure
        With --plan: do not time some updates on this device, and expect no hours.
    format
        How the plan is printed.
    quiet
        No progress bar.
    """
    from accelerate import PartialState

    from emotion2vec.manifest import find_recordings
    from emotion2vec.pretraining.config import read_config
    from emotion2vec.pretraining.health import try_report
    from emotion2vec.pretraining.loop import pretrain as run
    from emotion2vec.pretraining.monitor import CollapseError
    from emotion2vec.probing.quick import QuickProbe
    from emotion2vec.settings import parse_override

    settings = read_config(
        config, dict(parse_override(text) for text in set_ or []), flags=flags.given()
    )
    if plan:
        return _print_plan(settings, data, not no_measure, format, not quiet)
    if probe_every < 1:
        raise ValueError(f"--probe-every is {probe_every}; it must be a whole number from 1.")
    looks = QuickProbe(find_recordings(probe)) if probe else None
    try:
        result = run(
            settings,
            data,
            out,
            resume=resume,
            probe=looks,
            probe_every=probe_every,
            progress=not quiet,
        )
    except (CollapseError, KeyboardInterrupt):
        if PartialState().is_main_process:
            try_report(out)
        raise
    if result.is_main:
        try_report(out)
    if result.stopped_by:
        if result.is_main:
            print(f"stopped; the state is saved, --resume goes on with {out}.", file=sys.stderr)
        return 128 + result.stopped_by
    if not result.is_main:
        return 0
    print(f"The encoder is in {result.model}.")
    if result.skipped:
        print(f"{result.skipped} recordings were left out; {out}/skipped.jsonl says why.")
    # torchrun, and what waits for it, take any code but 0 for a failure.
    return SOME_FAILED if result.skipped and result.processes == 1 else 0


def _print_plan(
    settings: PretrainConfig,
    data: list[str],
    measured: bool,
    format: Format,
    progress: bool,
) -> int:
    """Print what the run will cost; under torchrun, for that many processes."""
    import json

    from accelerate import PartialState

    from emotion2vec.pretraining.data import scan
    from emotion2vec.pretraining.plan import make_plan, measure, table

    processes = PartialState()
    corpus = scan(data, settings, progress=progress and processes.is_main_process)
    found = measure(settings, corpus) if measured else None
    plan = make_plan(
        settings,
        corpus,
        device=processes.device,
        processes=processes.num_processes,
        measured=found,
    )
    if processes.is_main_process:
        print(json.dumps(plan.to_dict()) if format == "json" else table(plan))
    return SOME_FAILED if plan.left_out else 0
