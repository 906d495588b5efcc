"""The `emotion2vec` command: one subcommand a journey.

Nothing heavy is imported before a command runs, so that help answers at once.
"""

from __future__ import annotations

import logging
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from emotion2vec import __version__

SOME_FAILED = 3
"""Exit code of a run that finished but had to leave some recordings out."""

# Module -> extra that installs it.
_EXTRAS = {
    "accelerate": "train",
    "tensorboard": "train",
    "tomli_w": "train",
    "sklearn": "eval",
    "matplotlib": "eval",
    "transformers": "hf",
}

app = App(
    name="emotion2vec",
    version=__version__,
    help="Emotion in speech: pre-train, extract and probe emotion2vec representations.\n\n"
    "Any command takes --debug, which shows the traceback of an error. Exit codes: 0 all went "
    "well, 1 an error, 3 finished but some recordings had to be left out.",
)

Format = Literal["table", "json"]


@app.command
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
        Manifests (.jsonl), folders, globs or audio files.
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


@app.command
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
        Audio files, folders, globs or manifests (.jsonl).
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


@app.command
def probe(
    model: list[str],
    /,
    *,
    data: Annotated[list[str], Parameter(consume_multiple=True)],
    folds: Path | None = None,
    folds_name: str | None = None,
    num_folds: int = 5,
    seeds: int = 1,
    epochs: int = 100,
    layer: int | None = None,
    out: Path | None = None,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Score frozen encoders with the paper's linear probe, beside the baselines.

    emotion2vec probe runs/tiny/final --data corpus.jsonl --folds folds.json --out runs/tiny/probe

    The same architecture with random weights, log-mel statistics (with scikit-learn) and the
    constant answer are always scored beside.

    Parameters
    ----------
    model
        Folders or hub names of encoders.
    data
        Manifests whose lines have key, path, speaker and labels: {"emotion": ...}.
    folds
        File of folds; without it, folds are made by speaker.
    folds_name
        Which folds in the file; its first if none.
    num_folds
        How many folds to make by speaker.
    seeds
        How many seeds to average over.
    epochs
        Of the probe's training.
    layer
        A block's output, from 1; 0 for what enters the first block; none for the model's output.
    out
        Folder for results.txt, results.json, confusion.png and map.png.
    format
        How the results are printed.
    quiet
        No progress bars.
    """
    from emotion2vec.atomic import atomic_path
    from emotion2vec.manifest import find_recordings
    from emotion2vec.probing.benchmark import benchmark, write_report
    from emotion2vec.probing.folds import folds_by_speaker, folds_from_file
    from emotion2vec.probing.heads import HeadConfig
    from emotion2vec.probing.report import table, to_json

    if out is not None:  # what would fail after the work fails before it
        import matplotlib  # noqa: F401

        with atomic_path(out / "results.txt") as path:
            path.write_text("in progress\n")
    records = find_recordings(data)
    if folds is None:
        splits = folds_by_speaker(records, num_folds)
    else:
        splits = folds_from_file(folds, records, name=folds_name)
    found = benchmark(
        splits,
        model,
        layer=layer,
        seeds=range(seeds),
        head=HeadConfig(epochs=epochs),
        progress=not quiet,
    )
    print((table if format == "table" else to_json)(found.results, found.folds, found.head))
    if out is not None:
        write_report(found, out)
        print(f"Report and pictures are in {out}.", file=sys.stderr)
    for key, error in found.errors.items():
        print(f"left out: {key}: {error}", file=sys.stderr)
    return SOME_FAILED if found.errors else 0


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; errors are one line, with --debug the whole traceback."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    for stream in (sys.stdout, sys.stderr):  # file names need not be valid text
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING)
    try:
        code = app([a for a in arguments if a != "--debug"], result_action="return_value")
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if debug:
            raise
        print(f"error: {_explain(error)}", file=sys.stderr)
        code = 1
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        print(f"error: unexpected {kind}: {error} (--debug shows where)", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        code = 130
    sys.exit(code or 0)


def _explain(error: Exception) -> str:
    """Return the message; for a missing extra, how to install it."""
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRAS:
        extra = _EXTRAS[error.name]
        return f"this needs {error.name}: pip install 'emotion2vec[{extra}]'."
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    return str(error)
