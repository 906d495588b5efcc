"""The paper's ablations by short names: what each changes in the settings of a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

FIELDS: dict[str, tuple[str, ...]] = {
    "seed": ("seed",),
    "init": ("init",),
    "utterance_loss": ("utterance_loss",),
    "tokens": ("model.num_utterance_tokens",),
    "alpha": ("utterance_weight",),
    "frame_weight": ("frame_weight",),
    "top_k": ("top_k",),
    "mask_span": ("mask_span",),
    "mask_share": ("mask_share",),
    "masks": ("num_masks",),
    "tau": ("ema_start", "ema_end", "ema_anneal_updates"),
    "depth": ("model.depth",),
}
"""Name -> the fields of `PretrainConfig` that it sets; several are written "A:B:C"."""

_TOKENS = {"token": 1, "global": 0}
"""Utterance loss -> the number of tokens that it is defined with. Paper, section 3.3; "chunk" takes
any number, and "none" leaves the tokens where they are, so that only the loss is missing."""


def overrides_of(flags: Mapping[str, Any], *, top_k: int | None = None) -> dict[str, Any]:
    """The settings that ablations by name stand for, as `read_config` lays them over a file.

    A flag may imply another one, unless that is given: the losses "token" and "global" have 1 and
    0 utterance tokens; targets of fewer main blocks than `top_k` are averaged over all of them, as
    the reference does.

    Args:
        flags: values by name, see `FIELDS`
        top_k: what it is where no flag sets it

    Raises:
        ValueError: for an unknown name, or a value of several parts that has too few or too many

    >>> overrides_of({"utterance_loss": "token"})
    {'model.num_utterance_tokens': 1, 'utterance_loss': 'token'}
    >>> overrides_of({"tau": "0.99:0.999:500"})
    {'ema_start': 0.99, 'ema_end': 0.999, 'ema_anneal_updates': 500}
    >>> overrides_of({"depth": 4}, top_k=8)
    {'top_k': 4, 'model.depth': 4}
    """
    implied = {k: v for k, v in _implied(flags, top_k).items() if k not in flags}
    for name, value in implied.items():
        logger.info("%s is %s, which follows from the other flags.", FIELDS[name][0], value)
    flags = implied | dict(flags)
    overrides: dict[str, Any] = {}
    for name, value in flags.items():
        if name not in FIELDS:
            raise ValueError(f"{name} is no ablation; known are {', '.join(FIELDS)}.")
        names = FIELDS[name]
        overrides |= zip(names, [value] if len(names) == 1 else _parts(name, value), strict=True)
    return overrides


def _implied(flags: Mapping[str, Any], top_k: int | None) -> dict[str, Any]:
    implied = {}
    if flags.get("utterance_loss") in _TOKENS:
        implied["tokens"] = _TOKENS[flags["utterance_loss"]]
    if top_k is not None and flags.get("depth", top_k) < top_k:
        implied["top_k"] = flags["depth"]
    return implied


def _parts(name: str, value: str) -> list[float | int]:
    """Return the numbers of "0.999:0.9999:20000"; the last one counts updates."""
    parts = str(value).split(":")
    try:
        if len(parts) != len(FIELDS[name]):
            raise ValueError
        return [*map(float, parts[:-1]), int(parts[-1])]
    except ValueError:
        raise ValueError(
            f"{name} is {value}; write it as START:END:UPDATES, such as 0.999:0.99999:20000."
        ) from None
