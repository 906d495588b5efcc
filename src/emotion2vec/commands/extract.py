"""`emotion2vec extract`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from emotion2vec.commands.output import SOME_FAILED, Format


def extract(
    sources: list[str],
    /,
    *,
    model: str,
    out: Path,
    level: Literal["frame", "utterance"] = "utterance",
    layer: int | None = None,
    batch_seconds: float = 60.0,
    device: str | None = None,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Write the features of recordings, one .npy file each.

    emotion2vec extract corpus/ talk.mp3 'more/*.flac' --model runs/tiny/final --out features

    A recording that cannot be read becomes a line with its error in OUT/index.jsonl, and the exit
    code is 3. Files that are there already are not computed again.

    Parameters
    ----------
    sources
        Audio files, folders, globs, lists (.jsonl, .csv, wav.scp), or - for paths on standard
        input.
    model
        Folder or hub name of an encoder; "random:NAME" for random weights; "logmel".
    out
        Folder for KEY.npy and index.jsonl.
    level
        "frame": (frames, width), one every 20 ms; "utterance": (width,), the mean over frames.
    layer
        A block's output, from 1; 0 for what enters the first block; none for the model's output.
    batch_seconds
        Audio in a batch: bounds the memory, changes no answer.
    device
        Where to compute, such as cpu or cuda.
    format
        How the summary is printed.
    quiet
        No progress bar.
    """
    import json

    from emotion2vec.backbones import load_backbone
    from emotion2vec.extract import INDEX_NAME, extract_to_folder
    from emotion2vec.manifest import find_recordings

    backbone = load_backbone(model, layer=layer, device=device)
    summary = extract_to_folder(
        find_recordings(sources),
        backbone,
        out,
        level=level,
        batch_seconds=batch_seconds,
        progress=not quiet,
    )
    if format == "json":
        print(json.dumps(summary._asdict()))
    else:
        print(
            f"{summary.written} written, {summary.skipped} already there, {summary.failed} failed; "
            f"{out / INDEX_NAME} lists them."
        )
    return SOME_FAILED if summary.failed else 0
