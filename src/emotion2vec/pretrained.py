"""Folders of weights: `config.json` and `model.safetensors`, local or from a hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from emotion2vec.atomic import atomic_path
from emotion2vec.audio import SAMPLE_RATE
from emotion2vec.config import Emotion2vecConfig

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
PREPROCESSOR_NAME = "preprocessor_config.json"


class Pretrained:
    """Gives a module `from_pretrained`, `save_pretrained` and `push_to_hub`.

    Weights are read from safetensors only, and strictly: nothing is unpickled, and a name that is
    missing or left over is an error that lists it.
    """

    config: Emotion2vecConfig

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        token: str | None = None,
    ) -> Self:
        """The model in a folder, or in a repository of the Hugging Face hub, in eval mode.

        Args:
            name: a folder that `save_pretrained` wrote (transformers' one, too), or "owner/name"
            revision: branch, tag or commit on the hub
            cache_dir: where downloads are kept
            local_files_only: use what is cached, ask no network
            token: for private repositories

        Raises:
            FileNotFoundError: if neither a folder nor a reachable repository has that name
            ValueError: if the folder holds another kind of model, or weights that do not fit

        >>> import tempfile
        >>> from emotion2vec import Emotion2vec, Emotion2vecConfig
        >>> model = Emotion2vec(Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7))
        >>> folder = tempfile.mkdtemp()
        >>> model.save_pretrained(folder)
        >>> Emotion2vec.from_pretrained(folder).config.embed_dim
        48
        """
        folder = Path(name)
        if not folder.is_dir():
            folder = _download(str(name), revision, cache_dir, local_files_only, token)
        model = cls(read_config(folder))  # type: ignore[call-arg]
        assert isinstance(model, nn.Module)
        load_weights(model, cls.rename_weights(read_weights(folder)), folder)
        return model.eval()

    @classmethod
    def rename_weights(cls, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`weights` of this or a related model under the names of this class."""
        return dict(weights)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and `preprocessor_config.json` into `folder`.

        The last one tells transformers how clips are prepared.

        Raises:
            OSError: if the folder cannot be written
        """
        assert isinstance(self, nn.Module)
        folder = Path(folder)
        state = {name: value.detach().contiguous() for name, value in self.state_dict().items()}
        with atomic_path(folder / WEIGHTS_NAME) as path:
            write_weights(state, path)
        preprocessor = {
            "feature_extractor_type": "Emotion2vecFeatureExtractor",
            "sampling_rate": SAMPLE_RATE,
            "do_normalize": self.config.normalize_waveform,
        }
        for name, values in (
            (CONFIG_NAME, self.config.to_dict()),
            (PREPROCESSOR_NAME, preprocessor),
        ):
            with atomic_path(folder / name) as path:
                path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def push_to_hub(self, name: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to the hub as `name` ("owner/name"); the address of the commit."""
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(name, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return str(api.upload_folder(repo_id=name, folder_path=folder))


def read_config(folder: Path) -> Emotion2vecConfig:
    """The config in a folder of weights.

    Raises:
        FileNotFoundError: if it has none
        ValueError: if it is no JSON or describes another kind of model
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {CONFIG_NAME}; point at a folder that save_pretrained wrote."
        )
    try:
        values = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); save the model again.") from error
    return Emotion2vecConfig.from_dict(values)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors in a folder of weights.

    Raises:
        FileNotFoundError: if it has none
        ValueError: if the file is damaged
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} has no {WEIGHTS_NAME}; only safetensors are read, convert other checkpoints."
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); save or download it again.") from error


def write_weights(
    tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write tensors as safetensors.

    Raises:
        OSError: if the disk is full or the place cannot be written; safetensors has an error
            of its own for that, which callers could not tell from damage
    """
    try:
        save_file(tensors, path, metadata={"format": "pt", **(metadata or {})})
    except SafetensorError as error:
        raise OSError(f"{error}") from error


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: Any) -> None:
    """Copy `weights` into `model`, every name and shape exactly.

    Raises:
        ValueError: that lists what is missing, left over or of another shape
    """
    own = model.state_dict()
    problems = [f"missing {name}" for name in own if name not in weights]
    problems += [f"left over {name}" for name in weights if name not in own]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ValueError(
            f"the weights in {source} do not fit {type(model).__name__}: "
            f"{'; '.join(problems[:8])}{more}; load them with the class that saved them."
        )
    with torch.no_grad():
        model.load_state_dict(dict(weights))


def _download(
    name: str,
    revision: str | None,
    cache_dir: str | Path | None,
    local_files_only: bool,
    token: str | None,
) -> Path:
    """Return the local copy of a hub repository's config and weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[CONFIG_NAME, WEIGHTS_NAME],
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{name} is neither a folder nor a model that could be fetched from the hub "
            f"({type(error).__name__}); check the name, or download it where there is a network."
        ) from error
    return Path(folder)
