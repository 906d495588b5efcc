"""`emotion2vec extract`."""

from __future__ import annotations

from typing import Any, Literal

from emotion2vec.commands.output import SOME_FAILED, Format


def extract(
    sources: list[str],
    /,
    *,
    model: str,
    out: str,
    level: Literal["frame", "utterance", "tokens"] = "utterance",
    layer: str | None = None,
    to: Literal["npy", "npz", "parquet"] | None = None,
    dtype: Literal["float16", "float32"] = "float16",
    batch_seconds: float = 20.0,
    device: str | None = None,
    engine: Literal["local", "ray"] = "local",
    actors: int | None = None,
    gpus: float | None = None,
    address: str | None = None,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Write the features of recordings as .npy, .npz or parquet files; on a cluster, too.

    emotion2vec extract corpus/ talk.mp3 'more/*.flac' --model runs/tiny/final --out features

    emotion2vec extract s3://calls/list.jsonl --model runs/tiny/final --out s3://calls/features
    --engine ray

    A recording that cannot be read becomes a line with its error in OUT/index.jsonl, and the exit
    code is 3. Files that are there already are not computed again.

    Parameters
    ----------
    sources
        Audio files, folders, globs, lists (.jsonl, .csv, wav.scp), or - for paths on standard
        input; also at any address that fsspec knows (s3://..., gs://...).
    model
        Folder or hub name of an encoder; "random:NAME" for random weights; "hf:NAME" for another
        speech encoder of transformers; "logmel", "mfcc", "spectrogram", "egemaps", "trivial".
    out
        Folder for the files and index.jsonl; with --engine ray any fsspec address.
    level
        "frame": (frames, width), one every 20 ms; "utterance": (width,), the mean over frames;
        "tokens": (tokens, width), the model's utterance tokens.
    layer
        A block's output, from 1 (-1 is the last); 0 for what enters the first block; "mean" of all
        of them; or a weight for each, with commas; "all" of them, as an axis before the width;
        none for the model's output.
    to
        "npy" or "npz": a file each; "parquet": files of many rows. npy if not given, parquet with
        --engine ray, which writes nothing else.
    dtype
        Of the values in the files.
    batch_seconds
        Audio in a batch: bounds the memory, changes no answer. CPUs are slower with more,
        accelerators faster.
    device
        Where to compute, such as cpu or cuda.
    engine
        "local": this process; "ray": processes on all of a cluster's machines, by Ray (needs the
        extra ray). Killed ones lose nothing.
    actors
        Of ray: processes that compute, on one thread each. As many as processors or GPUs if not
        given.
    gpus
        Of ray: GPUs for each of them, such as 0.5. One where there are any, if not given.
    address
        Of ray: the running cluster, auto for the one that this machine belongs to, or HEAD:6379. If
        not given, that of RAY_ADDRESS, else one on this machine while the command runs.
    format
        How the summary is printed.
    quiet
        No progress bar.
    """
    import json

    from emotion2vec.extract import INDEX_NAME
    from emotion2vec.layer_choice import parse_layer
    from emotion2vec.manifest import find_recordings

    options: dict[str, Any] = {"level": level, "dtype": dtype, "batch_seconds": batch_seconds}
    options["progress"] = not quiet
    if engine == "ray":
        from emotion2vec.ray_extract import extract_with_ray

        if to not in (None, "parquet"):
            raise ValueError(f"to is {to}, and --engine ray writes parquet; leave --to out.")
        options |= {"layer": parse_layer(layer), "device": device, "actors": actors}
        options |= {"gpus": gpus, "address": address}
        summary = extract_with_ray(find_recordings(sources), model, out, **options)
    else:
        from emotion2vec.backbones import load_backbone
        from emotion2vec.extract import extract_to_folder

        given = {"--actors": actors, "--gpus": gpus, "--address": address}
        if any(value is not None for value in given.values()):
            names = [name for name, value in given.items() if value is not None]
            raise ValueError(f"{', '.join(names)}: for --engine ray only; add it or leave it out.")
        backbone = load_backbone(model, layer=parse_layer(layer), device=device)
        options["file_format"] = to or "npy"
        summary = extract_to_folder(find_recordings(sources), backbone, out, **options)
    if format == "json":
        print(json.dumps(summary._asdict()))
    else:
        print(
            f"{summary.written} written, {summary.skipped} already there, {summary.failed} failed; "
            f"{out.rstrip('/')}/{INDEX_NAME} lists them."
        )
    return SOME_FAILED if summary.failed else 0
