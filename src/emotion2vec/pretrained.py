"""`from_pretrained`, `save_pretrained` and `push_to_hub` for the models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

from torch import Tensor, nn

from emotion2vec.config import Emotion2vecConfig
from emotion2vec.published.hub import fetch
from emotion2vec.weights import load_weights, read_config, read_weights, write_folder


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
        """The model in a folder, or by its name on a hub, in eval mode.

        Args:
            name: a folder that `save_pretrained` (transformers' one, too) or `convert_checkpoint`
                wrote, a published name such as "plus-large", "owner/name" on the Hugging Face
                hub, or "modelscope:" and a name; see `hub.fetch`
            revision: branch, tag or commit on the hub
            cache_dir: where downloads and conversions are kept
            local_files_only: use what is cached, ask no network
            token: for private repositories

        Raises:
            FileNotFoundError: if neither a folder nor a reachable repository has that name
            ValueError: if the folder holds another kind of model, a checkpoint that has to be
                converted first, or weights that do not fit

        >>> import tempfile
        >>> from emotion2vec import Emotion2vec, Emotion2vecConfig
        >>> model = Emotion2vec(Emotion2vecConfig(embed_dim=48, conv_channels=(32,) * 7))
        >>> folder = tempfile.mkdtemp()
        >>> model.save_pretrained(folder)
        >>> Emotion2vec.from_pretrained(folder).config.embed_dim
        48
        """
        folder = fetch(
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
        )
        config = read_config(folder)
        cls.check_config(config, name)
        model = cls(config)  # type: ignore[call-arg]
        assert isinstance(model, nn.Module)
        load_weights(model, cls.rename_weights(read_weights(folder)), folder)
        return model.eval()

    @classmethod
    def check_config(cls, config: Emotion2vecConfig, name: str | Path) -> None:
        """Refuse the model `name` if it is not of a kind that this class can be.

        Raises:
            ValueError: that says what the model is, and what to do
        """

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
        write_folder(self.config, self.state_dict(), Path(folder))

    def push_to_hub(self, name: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the model to the hub as `name` ("owner/name"); the address of the commit."""
        import tempfile

        from huggingface_hub import HfApi

        api = HfApi(token=token)
        api.create_repo(name, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return str(api.upload_folder(repo_id=name, folder_path=folder))
