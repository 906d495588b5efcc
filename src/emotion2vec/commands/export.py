"""`emotion2vec export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from emotion2vec.commands.output import SOME_FAILED, Format, shows_bar, tell_left_out

if TYPE_CHECKING:
    from emotion2vec.export import Exported
    from emotion2vec.recognize import Recognizer


def export(
    model: str = "mini",
    /,
    *,
    out: Path | None = None,
    to: Literal["onnx"] = "onnx",
    int8: bool = False,
    data: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    batch_seconds: float = 20.0,
    format: Format = "table",
    quiet: bool = False,
) -> int:
    """Write a classifier as one file that runs without torch.

    emotion2vec export mini --to onnx --int8 --out mini.onnx

    emotion2vec recognize call.wav --model mini.onnx

    The file is run beside torch, on several lengths and a padded batch, and written only where it
    answers alike. Normalizing, masking, labels and sampling rate are in it. With --data, exit code
    3 says that some recordings could not be read.

    Parameters
    ----------
    model
        Folder of a classifier, name of a published one (emotion2vec models), or hub name.
    out
        The file; without, the model's name and .onnx, in the current folder.
    to
        What to write.
    int8
        Weights in eight bits: a quarter of the size, faster on CPUs, answers a little different.
    data
        Recordings, as in recognize, on which the labels of the file are counted beside torch's.
    batch_seconds
        Audio in a batch of --data.
    format
        How the answer is printed.
    quiet
        No progress bar.
    """
    from emotion2vec.export import EXPORTERS
    from emotion2vec.loading import load_classifier
    from emotion2vec.manifest import find_recordings
    from emotion2vec.onnx_runtime import is_onnx

    if is_onnx(model):
        raise ValueError(f"{model} is exported already; export the model that it was made from.")
    import onnxscript  # noqa: F401 (of the extra's packages the one that nothing else brings)

    records = None if data is None else find_recordings(data)
    if out is None:
        name = Path(model.rstrip("/")).name.removeprefix("modelscope:")
        out = Path(f"{name}-int8.{to}" if int8 else f"{name}.{to}")
    classifier = load_classifier(model)
    made = EXPORTERS[to](classifier, out, int8=int8, name=_name(model))
    facts: dict[str, Any] = made._asdict() | {"path": str(made.path)}
    errors: dict[str, str] = {}
    if records is not None:
        from emotion2vec.recognize import Recognizer

        pair = Recognizer(classifier, device="cpu"), Recognizer(out)
        for recognizer in pair:
            recognizer.batch_seconds = batch_seconds
        agreement, errors = _agreement(*pair, records, progress=shows_bar(quiet=quiet))
        facts |= {"recordings": len(records) - len(errors), "agreement": agreement}
    print(json.dumps(facts, ensure_ascii=False) if format == "json" else _table(made, facts))
    tell_left_out(errors)
    return SOME_FAILED if errors else 0


def _agreement(
    torch: Recognizer, file: Recognizer, records: list[Any], *, progress: bool
) -> tuple[float, dict[str, str]]:
    """Return the part of recordings with the same label, and what could not be recognized."""
    from emotion2vec.export import labels_agree

    ours = list(torch.recognize_all(records, progress=progress))
    theirs = list(file.recognize_all(records, progress=progress))
    errors = {b.key: a.error or b.error for a, b in zip(ours, theirs, strict=True)}
    return labels_agree(ours, theirs), {key: error for key, error in errors.items() if error}


def _table(made: Exported, facts: dict[str, Any]) -> str:
    """Return what was written, for people."""
    rows = [
        ["file", str(made.path)],
        ["size", f"{made.bytes / 1e6:.2f} MB, {made.precision}"],
        ["labels", ", ".join(made.labels) or "none"],
        ["values", ", ".join(made.dimensions) or "none"],
        ["lengths checked", f"{', '.join(map(str, made.lengths))} samples; and all in one batch"],
        ["largest difference", f"{made.difference:.1e} from torch, in float32"],
    ]
    if made.int8_difference is not None:
        rows.append(["with int8", f"{made.int8_difference:.1e}, of a probability or a value"])
    if "agreement" in facts:
        same = f"{100 * facts['agreement']:.2f} % of {facts['recordings']} recordings"
        rows.append(["labels as torch's", same])
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _name(model: str) -> str:
    """Return the model's name without the folders it lies in, which are nobody's business.

    >>> _name("plus-large"), _name("owner/name")
    ('plus-large', 'owner/name')
    """
    return Path(model).resolve().name if Path(model).exists() else model
