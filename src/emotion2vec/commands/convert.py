"""`emotion2vec convert`."""

from __future__ import annotations

from pathlib import Path

from emotion2vec.commands.output import Format


def convert(source: Path, out: Path, /, *, format: Format = "table") -> int:
    """Turn a published checkpoint into a model of this package.

    emotion2vec convert downloads/emotion2vec_plus_large models/plus-large

    Nothing in the checkpoint is run. OUT appears whole or not at all; OUT/conversion.json says
    what of the checkpoint was left out, and why.

    Parameters
    ----------
    source
        FunASR folder (config.yaml, model.pt, tokens.txt), fairseq .pt of emotion2vec, data2vec 2.0
        or data2vec 1 audio, or transformers folder of data2vec-audio.
    out
        New or empty folder, or one of an earlier conversion.
    format
        How the answer is printed.
    """
    import json

    from emotion2vec.published.convert import convert_checkpoint

    conversion = convert_checkpoint(source, out)
    if format == "json":
        facts = conversion._asdict() | {"folder": str(conversion.folder)}
        print(json.dumps(facts, ensure_ascii=False))
    else:
        print(conversion)
    return 0
