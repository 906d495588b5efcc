"""`emotion2vec pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from emotion2vec.commands.output import SOME_FAILED


def pretrain(
    config: Path,
    /,
    *,
    data: Annotated[list[str], Parameter(consume_multiple=True)],
    out: Path,
    resume: bool = False,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    quiet: bool = False,
) -> int:
    """Pre-train an encoder on unlabelled speech.

    emotion2vec pretrain configs/pretrain_tiny.toml --data corpus/ --out runs/tiny

    Writes OUT/final (the encoder), OUT/last.safetensors (to resume from), OUT/metrics.jsonl and
    OUT/tensorboard. For several devices: torchrun --nproc-per-node 4 -m emotion2vec pretrain ...

    Parameters
    ----------
    config
        TOML file of settings.
    data
        Lists (.jsonl, .csv, wav.scp), folders, globs, audio files, or - for paths on standard
        input.
    out
        Folder of the run.
    resume
        Go on with the run in OUT.
    set_
        A setting laid over the file, such as --set peak_lr=1e-4 or --set model.depth=6.
    quiet
        No progress bar.
    """
    from emotion2vec.manifest import find_recordings
    from emotion2vec.pretraining.config import parse_override, read_config
    from emotion2vec.pretraining.loop import pretrain as run

    settings = read_config(config, dict(parse_override(text) for text in set_ or []))
    result = run(settings, find_recordings(data), out, resume=resume, progress=not quiet)
    if not result.is_main:
        return 0
    print(f"The encoder is in {result.model}.")
    if result.skipped:
        print(f"{result.skipped} recordings were left out; {out}/skipped.jsonl says why.")
    return SOME_FAILED if result.skipped else 0
