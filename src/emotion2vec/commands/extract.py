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
    level: Literal["frame", "utterance", "tokens"] = "utterance",
    layer: str | None = None,
    to: Literal["npy", "npz", "parquet"] = "npy",
    dtype: Literal["float16", "float32"] = "float16",
    batch_seconds: float = 20.0,
    device: str | None = None,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Write the features of recordings as .npy, .npz or parquet files.

    emotion2vec extract corpus/ talk.mp3 'more/*.flac' --model runs/tiny/final --out features

    A recording that cannot be read becomes a line with its error in OUT/index.jsonl, and the exit
    code is 3. Files that are there already are not computed again.

    Parameters
    ----------
    sources
        Audio files, folders, globs, lists (.jsonl, .csv, wav.scp), or - for paths on standard
        input.
    model
        Folder or hub name of an encoder; "random:NAME" for random weights; "hf:NAME" for another
        speech encoder of transformers; "logmel", "mfcc", "spectrogram", "egemaps", "trivial".
    out
        Folder for the files and index.jsonl.
    level
        "frame": (frames, width), one every 20 ms; "utterance": (width,), the mean over frames;
        "tokens": (tokens, width), the model's utterance tokens.
    layer
        A block's output, from 1 (-1 is the last); 0 for what enters the first block; "mean" of all
        of them; or a weight for each, with commas; "all" of them, as an axis before the width;
        none for the model's output.
    to
        "npy" or "npz": a file each; "parquet": files of many rows.
    dtype
        Of the values in the files.
    batch_seconds
        Audio in a batch: bounds the memory, changes no answer. CPUs are slower with more,
        accelerators faster.
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
    from emotion2vec.layer_choice import parse_layer
    from emotion2vec.manifest import find_recordings

    backbone = load_backbone(model, layer=parse_layer(layer), device=device)
    summary = extract_to_folder(
        find_recordings(sources),
        backbone,
        out,
        level=level,
        file_format=to,
        dtype=dtype,
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
