"""`emotion2vec pack`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from emotion2vec.commands.output import SOME_FAILED, Format


def pack(
    *,
    data: Annotated[list[str], Parameter(consume_multiple=True)],
    out: str,
    shard_mb: float = 512.0,
    to: Literal["flac", "wav"] = "flac",
    workers: int | None = None,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Pack recordings into tar files (shards) for pre-training, here or in object storage.

    emotion2vec pack --data corpus.jsonl --out s3://bucket/shards

    Sound becomes mono at 16 kHz with 16 bits. A killed run goes on where it stopped. A recording
    that cannot be read becomes a line of OUT/errors.jsonl, and the exit code is 3.

    Parameters
    ----------
    data
        Lists (.jsonl, .csv, wav.scp), folders, globs, audio files, or - for paths on standard
        input.
    out
        Folder, or any address that fsspec knows (s3://..., gs://..., hf://...).
    shard_mb
        Size of a shard in megabytes, if flac saved nothing; it saves about half.
    to
        How sound is kept.
    workers
        Processes that decode and encode; as many as there are processors if not given.
    format
        How the summary is printed.
    quiet
        No progress bar.
    """
    import json
    import os

    from emotion2vec.pack import ERRORS_NAME
    from emotion2vec.pack import pack as run

    count = workers or os.cpu_count() or 1
    summary = run(data, out, shard_mb=shard_mb, to=to, workers=count, progress=not quiet)
    if format == "json":
        print(json.dumps(summary._asdict()))
    else:
        print(
            f"{summary.recordings} recordings, {summary.seconds / 3600:.2f} h, in {summary.shards} "
            f"shards in {out}."
        )
        if summary.failed:
            print(f"{summary.failed} were left out; {out}/{ERRORS_NAME} says why.")
    return SOME_FAILED if summary.failed else 0
