"""Checkpoints are read without running anything that is in them."""

from __future__ import annotations

import argparse
import enum
import os
import pickle
import struct
import sys
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Call
from safetensors.torch import save_file

from emotion2vec.published.pickles import StandIn, plain, read_pickle

FOREIGN = (
    "omegaconf", "omegaconf.base", "omegaconf.dictconfig", "omegaconf.listconfig",
    "omegaconf.nodes", "fairseq", "fairseq.dataclass", "fairseq.dataclass.constants",
)  # fmt: skip


@pytest.fixture
def foreign() -> Iterator[dict[str, Any]]:
    """Classes shaped as omegaconf's and fairseq's, importable only while a file is written."""
    modules = {name: types.ModuleType(name) for name in FOREIGN}
    classes: dict[str, Any] = {}

    def define(module: str, cls: type) -> None:
        cls.__module__, cls.__qualname__ = module, cls.__name__
        setattr(modules[module], cls.__name__, cls)
        classes[cls.__name__] = cls

    class Extractor(str, enum.Enum):  # noqa: UP042 - as fairseq's ChoiceEnum
        layer_norm = "layer_norm"

    class Modality(enum.Enum):
        AUDIO = 1

    for module, name in (("omegaconf.base", "ContainerMetadata"), ("omegaconf.nodes", "AnyNode"),
                         ("omegaconf.dictconfig", "DictConfig"),
                         ("omegaconf.listconfig", "ListConfig")):  # fmt: skip
        define(module, type(name, (), {}))
    define("fairseq.dataclass.constants", Extractor)
    define("fairseq.dataclass.constants", Modality)
    sys.modules.update(modules)
    yield classes
    forget()


def forget() -> None:
    for name in FOREIGN:
        sys.modules.pop(name, None)


def omega(value: Any, parent: Any, classes: dict[str, Any]) -> Any:
    """`value` as omegaconf 2.3 keeps it: nodes with metadata and a way back to the parent."""
    kind = {dict: "DictConfig", list: "ListConfig"}.get(type(value), "AnyNode")
    node = classes[kind]()
    metadata = classes["ContainerMetadata"]()
    metadata.__dict__.update(ref_type=Any, object_type=dict, resolver_cache=defaultdict(dict))
    node.__dict__.update(_metadata=metadata, _parent=parent)
    if isinstance(value, dict):
        node._content = {key: omega(item, node, classes) for key, item in value.items()}
    elif isinstance(value, list):
        node._content = [omega(item, node, classes) for item in value]
    else:
        node._val = value
    return node


@pytest.mark.parametrize("zipped", [True, False])
def test_foreign_classes_become_plain_settings(
    tmp_path: Path, foreign: dict[str, Any], zipped: bool
) -> None:
    settings = {
        "depth": 8, "lr": [0.1, 2], "eps": 1e-5, "none": None, "flag": True,
        "mode": foreign["Extractor"].layer_norm, "type": foreign["Modality"].AUDIO,
        "nested": {"a": {"b": "c"}},
    }  # fmt: skip
    checkpoint = {
        "cfg": omega(settings, None, foreign),
        "args": argparse.Namespace(arch="x", sizes=[1]),
        "where": Path("/data/x"),
        "metrics": [("loss", np.float64(3), np.arange(3))],
        "model": {"w": torch.arange(6.0).view(2, 3)},
    }
    path = tmp_path / "c.pt"
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    forget()
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)  # nothing here could import them
    read = read_pickle(path)
    assert isinstance(read["cfg"], StandIn)
    held = plain(read)
    assert held["cfg"] == {**settings, "mode": "layer_norm", "type": 1}
    assert held["args"] == {"arch": "x", "sizes": [1]}
    assert held["where"] == "/data/x"
    assert read["model"]["w"].equal(checkpoint["model"]["w"])
    assert not any(name.startswith(("omegaconf", "fairseq")) for name in sys.modules)


def test_settings_that_contain_themselves() -> None:
    endless: list[Any] = []
    endless.append({"a": endless})
    with pytest.raises(ValueError, match="contain themselves"):
        plain({"cfg": endless})


def canaries(canary: Path) -> dict[str, Any]:
    """Calls that would create `canary`, one a way."""
    create = f"open({str(canary)!r}, 'w').close()"
    return {
        "posix.system": Call(os.system, f"touch {canary}"),
        "builtins.eval": Call(eval, create),
        "builtins.exec": Call(exec, create),
        "builtins.getattr": Call(getattr, dict, "fromkeys"),
        "subprocess.Popen": Call(__import__("subprocess").Popen, ["touch", str(canary)]),
        "torch.load": Call(torch.load, "x.pt"),
    }


@pytest.mark.parametrize("way", ["zip", "legacy", *range(6)])
@pytest.mark.parametrize("name", sorted(canaries(Path("x"))))
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, name: str, way: Any) -> None:
    canary = tmp_path / "canary"
    call = canaries(canary)[name]
    path = tmp_path / "evil.pt"
    tensors = {"w": torch.ones(2), "_ema": {"w": torch.ones(2), "deep": [(call,)]}}
    if isinstance(way, int):  # plain pickle of each protocol, not torch.save
        path.write_bytes(pickle.dumps({"model": {"deep": call}}, protocol=way))
    else:
        torch.save({"model": tensors}, path, _use_new_zipfile_serialization=way == "zip")
    # Old pickles call subprocess by its name in Python 2.
    wanted = {"torch.load": "torch.serialization.load", "subprocess.Popen": "Popen"}.get(name, name)
    with pytest.raises(ValueError, match=rf"asks for .*{wanted}.*nothing of it was run"):
        read_pickle(path)
    assert not canary.exists()


def test_a_call_that_hides_in_a_harmless_family_is_inert(tmp_path: Path) -> None:
    # numpy.testing has a function that runs its argument; here its name is a stand-in.
    canary = tmp_path / "canary"
    path = tmp_path / "evil.pt"
    run = np.testing._private.utils.runstring
    torch.save({"cfg": Call(run, f"open({str(canary)!r}, 'w')", {}), "w": torch.ones(1)}, path)
    read = read_pickle(path)
    assert isinstance(read["cfg"], StandIn) and read["w"].equal(torch.ones(1))
    assert not canary.exists()
    torch.load(path, weights_only=False)  # the attack is real: torch's own reader runs it
    assert canary.exists()


def test_a_zip_whose_names_lie_runs_nothing(tmp_path: Path) -> None:
    # Should the scan ever miss what the reader sees, the reader itself knows no such name.
    import emotion2vec.published.pickles as module

    canary = tmp_path / "canary"
    path = tmp_path / "evil.pt"
    torch.save({"w": canaries(canary)["posix.system"]}, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_foreign_globals", lambda *_: set())
        with pytest.raises(ValueError, match="no checkpoint of torch.save"):
            read_pickle(path)
    assert not canary.exists()


def test_what_is_no_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"w": torch.ones(100), "name": "x" * 500}, path)
    whole = path.read_bytes()
    torch.save({"w": torch.ones(100)}, path, _use_new_zipfile_serialization=False)
    legacy = path.read_bytes()
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    cases = {
        b"": "is empty",
        b"hello, this is a text": "no checkpoint of torch.save",
        b"version https://git-lfs.github.com/spec/v1\noid": "pointer of Git LFS",
        whole[: len(whole) // 2]: "is damaged",
        whole[:60] + b"\0\xff" * 40 + whole[140:]: "is damaged",
        legacy[: len(legacy) // 2]: "is damaged",
        legacy[:-30]: "is damaged",
        pickle.dumps({"w": 1}, protocol=2): "no checkpoint of torch.save",
        struct.pack("<Q", 10) + b"no json here": "no checkpoint of torch.save",
        (tmp_path / "w.safetensors").read_bytes(): "rename it to .safetensors",
        (tmp_path / "module.pt").read_bytes(): "asks for torch.nn.modules.linear.Linear",
        (tmp_path / "script.pt").read_bytes(): "TorchScript program",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as raised:
            read_pickle(path)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 500
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_pickle(tmp_path / "none.pt")
