"""What a published checkpoint holds: recognized by what is in it, read into memory.

Four kinds are known: FunASR's folder, fairseq's file of emotion2vec or data2vec 2.0, fairseq's file
of data2vec 1, and transformers' folder of data2vec 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from torch import Tensor

from emotion2vec.config import MODEL_TYPE, Emotion2vecConfig
from emotion2vec.published.data2vec1 import (
    config_from_data2vec1,
    config_from_transformers,
    data2vec1_table,
)
from emotion2vec.published.pickles import plain, read_pickle
from emotion2vec.published.reference import Origin, config_from_reference, reference_table
from emotion2vec.weights import CONFIG_NAME, PREPROCESSOR_NAME, WEIGHTS_NAME, read_tensors

FUNASR_CONFIG = "config.yaml"
FUNASR_META = "configuration.json"
FUNASR_WEIGHTS = ("model.pt", "emotion2vec_base.pt")
FUNASR_TOKENS = "tokens.txt"
TRANSFORMERS_WEIGHTS = (WEIGHTS_NAME, "pytorch_model.bin")
TRANSFORMERS_TYPE = "data2vec-audio"
SETTINGS = (CONFIG_NAME, PREPROCESSOR_NAME, FUNASR_CONFIG, FUNASR_META, FUNASR_TOKENS)
"""files beside the weights, all small"""
_UNWRAP = ("state_dict", "model_state_dict", "model")
_TEACHER = "_ema"


class Checkpoint(NamedTuple):
    """A checkpoint in memory, by the names that are in its file."""

    file: Path
    """of the weights"""
    origin: str
    """what wrote it, in words"""
    config: Emotion2vecConfig
    table: dict[str, Origin]
    """which of its weights ours come from"""
    weights: dict[str, Tensor]
    teacher: dict[str, Tensor]
    """the moving average that taught it, by the same names; mostly empty"""
    scopes: tuple[tuple[str, str], ...]
    """(prefix in the file, prefix in the reference), the last that fits counts"""
    other: tuple[str, ...]
    """entries of the file that are no weights of the model, such as the optimizer's state"""


def open_checkpoint(source: str | Path) -> Checkpoint:
    """The checkpoint in a folder or file; nothing in it is run.

    Args:
        source: FunASR's folder, or the weights in it; a fairseq .pt; transformers' folder

    Raises:
        FileNotFoundError: if there is no such place, or a file of the folder is missing
        ValueError: if it is another kind of model, or not what it seems

    >>> open_checkpoint("nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere does not exist; name a checkpoint's folder or its .pt file.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(
            f"{source} does not exist; name a checkpoint's folder or its .pt file."
        )
    if source.is_dir():
        if (source / FUNASR_CONFIG).is_file():
            return _open_funasr(source, None)
        if (source / CONFIG_NAME).is_file():
            return _open_transformers(source)
        raise FileNotFoundError(
            f"{source} has neither {FUNASR_CONFIG} (FunASR) nor {CONFIG_NAME} (transformers); "
            "name a folder that has one, or a fairseq .pt file."
        )
    if (source.parent / FUNASR_CONFIG).is_file():
        return _open_funasr(source.parent, source)
    return _open_fairseq(source)


def is_own_format(folder: Path) -> bool:
    """Whether `folder` holds a model of this package, ours or transformers' twin of it."""
    path = folder / CONFIG_NAME
    return path.is_file() and _read_json(path).get("model_type") == MODEL_TYPE


def weights_names(folder: Path) -> tuple[str, ...]:
    """Under which names the weights that belong to a folder's settings may be, best first.

    Empty for settings that are of no known kind.

    Raises:
        ValueError: if the settings cannot be read
    """
    if is_own_format(folder):
        return (WEIGHTS_NAME,)
    if (folder / FUNASR_CONFIG).is_file():
        named = _metas(folder).get("init_param")
        return (Path(str(named)).name,) if named else FUNASR_WEIGHTS
    path = folder / CONFIG_NAME
    if path.is_file() and _read_json(path).get("model_type") == TRANSFORMERS_TYPE:
        return TRANSFORMERS_WEIGHTS
    return ()


def _metas(folder: Path) -> dict[str, Any]:
    """Return which file FunASR's configuration.json gives which part."""
    path = folder / FUNASR_META
    metas = _read_json(path).get("file_path_metas") if path.is_file() else None
    return metas if isinstance(metas, dict) else {}


def _open_funasr(folder: Path, file: Path | None) -> Checkpoint:
    """Read a folder as FunASR's AutoModel finds its files."""
    settings = _read_yaml(folder / FUNASR_CONFIG)
    if settings.get("model", "Emotion2vec") != "Emotion2vec":
        raise ValueError(f"{folder} is a {settings['model']} of FunASR; only Emotion2vec is read.")
    conf = settings.get("model_conf")
    if not isinstance(conf, Mapping):
        raise ValueError(f"{folder / FUNASR_CONFIG} has no model_conf; download it again.")
    tokens = (_metas(folder).get("tokenizer_conf") or {}).get("token_list", FUNASR_TOKENS)
    # Without a tokenizer FunASR makes no classifier, whatever else lies in the folder.
    labels = _read_labels(folder / Path(tokens).name) if settings.get("tokenizer") else ()
    config = config_from_reference(conf, labels)
    file = file or _first(folder, *weights_names(folder))
    content = read_pickle(file)
    scopes = _scopes(settings.get("scope_map"), folder)
    weights, teacher, other = _unwrap(content, file)
    return Checkpoint(
        file, "FunASR", config, reference_table(config), weights, teacher, scopes, other
    )


def _open_fairseq(file: Path) -> Checkpoint:
    """Read a file that fairseq's trainer wrote; its settings are in it."""
    content = read_pickle(file)
    settings = plain(content.get("cfg")) if isinstance(content, Mapping) else None
    conf = settings.get("model") if isinstance(settings, Mapping) else None
    if not isinstance(settings, Mapping) or not isinstance(conf, Mapping):
        raise ValueError(
            f"{file} holds no settings (cfg.model), so its architecture is unknown; put FunASR's "
            f"{FUNASR_CONFIG} beside it, or take the file that fairseq's trainer wrote."
        )
    normalize = (settings.get("task") or {}).get("normalize")
    conf = {"normalize": normalize, **conf}
    weights, teacher, other = _unwrap(content, file)
    other = tuple(name for name in other if name != "cfg")
    scopes = (("module.", ""),)
    if "modalities" in conf:
        config = config_from_reference(conf)
        table, origin = reference_table(config), "fairseq"
    elif conf.get("_name") == "data2vec_audio":
        config = config_from_data2vec1(conf)
        table, origin = data2vec1_table(config), "data2vec 1, fairseq"
    else:
        raise ValueError(
            f"{file} is a {conf.get('_name')!r} of fairseq; read are emotion2vec, data2vec 2.0 "
            "(data2vec_multi) and data2vec 1 audio (data2vec_audio), pre-trained."
        )
    return Checkpoint(file, origin, config, table, weights, teacher, scopes, other)


def _open_transformers(folder: Path) -> Checkpoint:
    """Read a transformers folder of data2vec 1."""
    values = _read_json(folder / CONFIG_NAME)
    kind = values.get("model_type")
    if kind == MODEL_TYPE:
        raise ValueError(f"{folder} is in this package's format already; from_pretrained reads it.")
    if kind != TRANSFORMERS_TYPE:
        raise ValueError(
            f"{folder} is a {kind!r} of transformers; only {TRANSFORMERS_TYPE} is read."
        )
    preprocessor = folder / PREPROCESSOR_NAME
    config = config_from_transformers(
        values, _read_json(preprocessor) if preprocessor.is_file() else None
    )
    file = _first(folder, *weights_names(folder))
    content = read_tensors(file) if file.suffix == ".safetensors" else read_pickle(file)
    weights, teacher, other = _unwrap(content, file)
    table = data2vec1_table(config, transformers=True)
    scopes = (("data2vec_audio.", ""),)
    origin = "data2vec 1, transformers"
    return Checkpoint(file, origin, config, table, weights, teacher, scopes, other)


def _unwrap(
    content: Any, file: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor], tuple[str, ...]]:
    """Return the weights, the teacher's, and the names of everything beside them.

    The order is that of FunASR's loader.
    """
    other: list[str] = []
    for name in _UNWRAP:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            other += [str(key) for key in content if key != name]
            content = content[name]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{file} holds no weights by name; name a model's checkpoint.")
    weights, teacher = {}, {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            weights[str(name)] = value
        elif str(name).split(".")[-1] == _TEACHER and isinstance(value, Mapping):
            teacher = {str(k): v for k, v in value.items() if isinstance(v, Tensor)}
        else:
            raise ValueError(
                f"{file} has an entry {name} among its weights that is a {type(value).__name__}, "
                "no tensor; name a model's checkpoint."
            )
    return weights, teacher, tuple(other)


def _scopes(scope_map: Any, folder: Path) -> tuple[tuple[str, str], ...]:
    """Return FunASR's pairs of prefixes, and the one that it always adds."""
    if isinstance(scope_map, str):
        scope_map = scope_map.split(",")
    names = ["" if str(n).lower() == "none" else str(n) for n in scope_map or []]
    if len(names) % 2:
        raise ValueError(f"scope_map in {folder / FUNASR_CONFIG} has no pairs; download it again.")
    return (*zip(names[::2], names[1::2], strict=True), ("module.", ""))


def _read_labels(path: Path) -> tuple[str, ...]:
    """Return one label a line; none if there is no file."""
    if not path.is_file():
        return ()
    try:
        labels = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text; download it again.") from error
    labels = tuple(label for label in labels if label)
    if len(set(labels)) != len(labels):
        raise ValueError(f"{path} has a label twice; download it again.")
    return labels


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is no plain YAML ({reason}); download it again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no settings by name; download it again.")
    return values


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); download it again.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no settings by name; download it again.")
    return values


def _first(folder: Path, *names: str) -> Path:
    """Return the first of the names that is there."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{folder} has no {' or '.join(dict.fromkeys(names))}; download the weights into it."
    )
