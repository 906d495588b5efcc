"""Settings of a run: TOML files, and values laid over them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any


def read_settings(path: str | Path, *tables: str) -> tuple[dict[str, Any], ...]:
    r"""What stands in a TOML file: its settings, then those of each of the named tables.

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if it is no TOML, or a named table is something else

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run.toml"
    >>> _ = path.write_text("seed = 3\n[model]\ndepth = 8\n")
    >>> read_settings(path, "model")
    ({'seed': 3}, {'depth': 8})
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"the config {path} is not a file; check the path.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        inner = [dict(values.pop(table, {})) for table in tables]
    except (ValueError, TypeError) as error:  # no UTF-8, no TOML, or a table that is none
        raise ValueError(f"{path} is not TOML of settings ({error}); mend that line.") from error
    return values, *inner


def check_names(values: Mapping[str, Any], kind: type, source: object, prefix: str = "") -> None:
    """Refuse settings that are no fields of the dataclass `kind`.

    Raises:
        ValueError: that names the first one, and those that are known

    >>> from emotion2vec import Emotion2vecConfig
    >>> check_names({"depth": 8}, Emotion2vecConfig, "run.toml")
    """
    known = {f.name for f in fields(kind)} - {"model"}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(
            f"{source}: {prefix}{unknown[0]} is no setting; known are {', '.join(sorted(known))}."
        )


def check_whole_numbers(settings: object, names: Sequence[str], least: int) -> None:
    """Refuse fields that are no whole numbers, or under `least`.

    Raises:
        ValueError: that names the first one

    >>> from emotion2vec import Emotion2vecConfig
    >>> check_whole_numbers(Emotion2vecConfig(), ["depth", "num_heads"], 1)
    """
    for name in names:
        value = getattr(settings, name)
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} is {value}; it must be a whole number from {least}.")


def parse_override(text: str) -> tuple[str, Any]:
    """Name and value of "name=value", the value as TOML would read it, else as a string.

    Raises:
        ValueError: if there is no "="

    >>> parse_override("peak_lr=1e-3"), parse_override("masker=span")
    (('peak_lr', 0.001), ('masker', 'span'))
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text} has no value; write it as --set peak_lr=1e-3.")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value
