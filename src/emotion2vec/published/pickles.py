"""Checkpoints of torch.save, read without running anything that is in them.

A pickle is a program. Here only torch's own restricted reader touches it (`weights_only=True`), and
the classes of other libraries that fairseq leaves in its files become inert stand-ins.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import _weights_only_unpickler
from torch._utils import IMPORT_MAPPING, NAME_MAPPING

# Whose classes may stand in a checkpoint: settings, enumerations, paths, numbers. None is imported.
_FAMILIES = {
    "antlr4", "argparse", "collections", "data2vec", "emotion2vec", "enum", "examples", "fairseq",
    "fairseq_cli", "funasr", "hydra", "numpy", "omegaconf", "pathlib", "typing", "upstream",
}  # fmt: skip
_BUILTINS = {
    f"builtins.{name}"
    for name in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "str",
                 "tuple")
}  # fmt: skip
_LEGACY_PICKLES = 4  # magic number, protocol, system, the object; then keys and raw storages
_LFS_POINTER = b"version https://git-lfs"


class StandIn:
    """What an object of a foreign class becomes: its arguments and its state, and no behaviour."""

    origin = ""
    """"module.name" of the class"""
    arguments: tuple[Any, ...]
    state: Any

    def __new__(cls, *arguments: Any) -> StandIn:
        """Keep the arguments; nothing is called."""
        self = super().__new__(cls)
        self.arguments, self.state = arguments, None
        return self

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_pickle(path: str | Path) -> Any:
    """What torch.save wrote to `path`; tensors on the CPU, foreign objects as `StandIn`.

    Args:
        path: zip format (torch 1.6 or newer) or the older one. Tensors in a zip are mapped, not
            read: leave the file as it is while they live

    Raises:
        FileNotFoundError: if there is no such file
        ValueError: if the file asks for anything but tensors, plain values and settings (nothing
            of it is run then), or is no checkpoint, or is damaged

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "a.pt"
    >>> torch.save({"x": torch.ones(2)}, file)
    >>> read_pickle(file)
    {'x': tensor([1., 1.])}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; name a checkpoint file.")
    is_zip = _check_container(path)
    try:
        foreign = _foreign_globals(path, is_zip)
    except Exception as error:  # any: the bytes are whatever someone sent
        raise _damaged(path, error) from error
    unknown = sorted(name for name in foreign if not _is_harmless(name))
    if unknown:
        raise ValueError(
            f"{path} asks for {', '.join(unknown[:8])}, which no checkpoint needs; nothing of it "
            "was run: get the file from its publisher, or save its weights as safetensors."
        )
    stand_ins: list[Any] = [(_stand_in(name), name) for name in sorted(foreign)]
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except Exception as error:
        raise _damaged(path, error) from error


def plain(value: Any) -> Any:
    """`value` with stand-ins turned into what they held: settings as nested dicts and lists.

    omegaconf's nodes become their content, argparse's namespaces dicts, enumerations their
    values, paths strings. Tensors stay.

    Raises:
        ValueError: if the settings contain themselves

    >>> node = _stand_in("omegaconf.nodes.AnyNode")()
    >>> node.__setstate__({"_val": 12, "_parent": node})
    >>> plain({"depth": node, "sizes": (1, 2)})
    {'depth': 12, 'sizes': [1, 2]}
    """
    try:
        return _plain(value)
    except RecursionError as error:
        raise ValueError("the settings in the checkpoint contain themselves.") from error


def _plain(value: Any) -> Any:
    if isinstance(value, StandIn):
        return _held(value)
    if isinstance(value, Mapping):
        return {
            str(_plain(k)) if isinstance(k, StandIn) else k: _plain(v) for k, v in value.items()
        }
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value


def _held(value: StandIn) -> Any:
    state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
    if isinstance(state, dict):
        for name in ("_content", "_val"):  # omegaconf: containers, leaves
            if name in state:
                return _plain(state[name])
        return _plain(state)
    if value.origin.startswith("pathlib."):
        return str(Path(*map(str, value.arguments)))
    if len(value.arguments) == 1:  # an enumeration is pickled as its class called with its value
        return _plain(value.arguments[0])
    return f"<{value.origin}>"


def _check_container(path: Path) -> bool:
    """Whether the file is a zip archive; a ValueError for what is clearly no checkpoint."""
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        raise ValueError(f"{path} is empty; download or save it again.")
    if start.startswith(_LFS_POINTER):
        raise ValueError(f"{path} is a pointer of Git LFS, not the weights; run git lfs pull.")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        raise ValueError(f"{path} is safetensors under another name; rename it to .safetensors.")
    if not start.startswith(b"PK"):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _damaged(path, error) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise ValueError(f"{path} is a TorchScript program; only weights are read, export those.")
    return True


def _foreign_globals(path: Path, is_zip: bool) -> set[str]:
    """Return what the pickles name beyond torch's own safe list, found without running them."""
    names: set[str] = set()
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.split("/")[-1] == "data.pkl":
                    names |= _globals_of_next_pickle(io.BytesIO(archive.read(name)))
    else:
        with path.open("rb") as file:
            for _ in range(_LEGACY_PICKLES):
                if file.peek(1):  # a plain pickle ends after one
                    names |= _globals_of_next_pickle(file)
    return names - set(_weights_only_unpickler._get_allowed_globals())


def _globals_of_next_pickle(file: IO[bytes]) -> set[str]:
    names, strings = set(), ["", ""]
    for code, argument, _ in pickletools.genops(file):
        if "UNICODE" in code.name:
            strings = [strings[-1], str(argument)]
        elif code.name in ("GLOBAL", "INST"):
            names.add(_modern(*str(argument).split(" ", 1)))
        elif code.name == "STACK_GLOBAL":  # of newer pickles, which torch does not read
            names.add(_modern(*strings))
    return names


def _modern(module: str, name: str) -> str:
    """Python 3's name of what Python 2 may have called otherwise, as torch's reader maps them."""
    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[module, name]
    return f"{IMPORT_MAPPING.get(module, module)}.{name}"


def _is_harmless(name: str) -> bool:
    return name.split(".")[0] in _FAMILIES or name in _BUILTINS


def _stand_in(name: str) -> Any:
    """Return an inert class, of its own for each name; a plain dict for mappings with a factory."""
    if name == "collections.defaultdict":
        return _empty_dict  # torch's reader sets items of real dicts only
    return type(name.rsplit(".", 1)[-1], (StandIn,), {"origin": name})


def _empty_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _damaged(path: Path, error: Exception) -> ValueError:
    # torch wraps what its reader found into advice on how to switch the safety off.
    lines = str(error).split("WeightsUnpickler error:")[-1].strip().splitlines()
    reason = lines[0][:160] if lines else type(error).__name__
    return ValueError(
        f"{path} is damaged or no checkpoint of torch.save ({reason}); download or save it again."
    )
