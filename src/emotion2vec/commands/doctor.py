"""`emotion2vec doctor`."""

from __future__ import annotations

from typing import Any

from emotion2vec.commands.output import Format

# Extra -> the packages whose presence it means.
EXTRAS = {
    "train": ("accelerate", "tensorboard", "tomli-w"),
    "eval": ("matplotlib", "scikit-learn"),
    "hf": ("transformers",),
    "media": ("av",),
    "parquet": ("pyarrow",),
    "modelscope": ("modelscope",),
    "umap": ("umap-learn",),
}
CORE = ("torch", "numpy", "soundfile", "soxr", "safetensors", "huggingface-hub")


def doctor(*, format: Format = "table") -> int:
    """Say what is installed, where models compute and where they are kept.

    emotion2vec doctor

    What to put into a bug report. Asks no network.

    Parameters
    ----------
    format
        How the answer is printed.
    """
    import json

    facts = {
        "versions": _versions(),
        "extras": {name: _missing(packages) for name, packages in EXTRAS.items()},
        "devices": _devices(),
        "sound": _sound(),
        "caches": _caches(),
    }
    if format == "json":
        print(json.dumps(facts, indent=1))
        return 0
    for title, values in facts.items():
        print(title)
        for name, value in values.items():
            print(f"  {name:<20} {_extra(name, value) if title == 'extras' else value}")
    return 0


def _extra(name: str, missing: list[str]) -> str:
    if not missing:
        return "installed"
    return f"pip install 'emotion2vec[{name}]' (brings {', '.join(missing)})"


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _versions() -> dict[str, Any]:
    import platform

    names = ("emotion2vec", *CORE)
    found = {"python": platform.python_version(), "system": platform.platform()}
    return found | {name: _version(name) or "missing" for name in names}


def _missing(packages: tuple[str, ...]) -> list[str]:
    return [package for package in packages if _version(package) is None]


def _devices() -> dict[str, Any]:
    import torch

    from emotion2vec.encoding import default_device

    found: dict[str, Any] = {"used by default": default_device()}
    found["cpu threads"] = torch.get_num_threads()
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        found[f"{kind} devices"] = torch.accelerator.device_count()
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        found[f"cuda:{number}"] = f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB"
    return found


def _sound() -> dict[str, Any]:
    import soundfile

    formats = ", ".join(sorted(name.lower() for name in soundfile.available_formats()))
    media = _version("av")
    return {
        "libsndfile": soundfile.__libsndfile_version__,
        "read by it": formats,
        "m4a, mp4, webm, ...": f"av {media}" if media else "need the extra media",
    }


def _caches() -> dict[str, Any]:
    from huggingface_hub import constants

    from emotion2vec.hub import conversions_folder

    downloads, conversions = constants.HF_HUB_CACHE, conversions_folder()
    models = sorted(path.name for path in conversions.glob("*") if path.is_dir())
    return {
        "downloads": downloads,
        "conversions": str(conversions),
        "converted models": ", ".join(models) or "none",
        "hub": constants.ENDPOINT,
        "offline": "yes (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else "no",
    }
