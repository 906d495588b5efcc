"""Other people's speech encoders: frames of any that transformers has, each clip as if alone.

B clips, S samples, T frames, L layers, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emotion2vec.audio import SAMPLE_RATE, Waveform, pad_clips
from emotion2vec.layer_choice import mix_layers
from emotion2vec.published.pickles import read_pickle

LONGEST_FRAMES = 3000
"""60 s: longer recordings are encoded in parts, each as if it were alone, because attention over
all pairs of frames would not fit the memory."""

CONFIG_NAME = "config.json"
JSON_NAMES = (CONFIG_NAME, "preprocessor_config.json", "processor_config.json")
WEIGHTS_NAMES = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLE_NAME = "pytorch_model.bin"


@dataclass(frozen=True)
class SpeechEncoder:
    """A loaded encoder, and what makes its input from sound."""

    model: nn.Module
    """in eval mode; may be moved to any device"""
    extractor: Any
    """transformers' feature extractor: normalizes, or makes log-mel frames"""
    config: Any

    @property
    def dim(self) -> int:
        """D."""
        return int(self.config.hidden_size)

    @property
    def depth(self) -> int:
        """Blocks; there is one layer more, what enters the first."""
        return int(self.config.num_hidden_layers)

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides over the output beside the weights."""
        config = self.config.to_dict()
        for name in ("_name_or_path", "architectures", "dtype", "transformers_version"):
            config.pop(name, None)
        return {"config": config, "extractor": self.extractor.to_dict()}

    @torch.inference_mode()
    def encode(
        self, clips: Sequence[Waveform], layer_weights: Tensor | None
    ) -> list[NDArray[np.float32]]:
        """Frames of clips (S,) at 16 kHz, not normalized: (T, D) each, one every 20 ms.

        Args:
            clips: mono, 16 kHz
            layer_weights: (blocks + 1,), return that sum over transformers' hidden states instead
                of the output; or (L, blocks + 1), return L such sums, (T, L, D)

        Raises:
            RuntimeError: if a clip is too short for the model
        """
        frames = FAMILIES[self.config.model_type](self, clips, layer_weights)
        return [f.float().cpu().numpy() for f in frames]

    def run(self, layer_weights: Tensor | None, *inputs: Tensor, **options: Tensor) -> Tensor:
        """Frames (B, T, D) or (B, T, L, D) of what the model takes."""
        device = next(self.model.parameters()).device
        output = self.model(
            *(tensor.to(device) for tensor in inputs),
            **{name: tensor.to(device) for name, tensor in options.items()},
            output_hidden_states=layer_weights is not None,
        )
        if layer_weights is None:
            return output.last_hidden_state
        return mix_layers(output.hidden_states, layer_weights)


def _of_waveforms(
    encoder: SpeechEncoder, clips: Sequence[Waveform], layer_weights: Tensor | None
) -> Iterator[Tensor]:
    """Frames of wav2vec 2.0 and its kin, as many as the convolutions make of a clip.

    Those with layer norm in the convolutions were trained with attention masks, and are batched.
    The others' group norm takes its statistics over all time, padding too: they go clip by clip.
    """
    window, hop = window_and_hop(encoder.config)
    ready = [
        encoder.extractor(clip, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_values"][0]
        for clip in clips
    ]
    lengths = [(len(clip) - window) // hop + 1 for clip in ready]
    if min(lengths) < 1:
        raise RuntimeError(f"a clip has under {window} samples, which the model needs for a frame")
    masked = getattr(encoder.config, "feat_extract_norm", None) == "layer"
    if masked and max(lengths) <= LONGEST_FRAMES:
        batch, keep = (torch.from_numpy(array) for array in pad_clips(ready))
        frames = encoder.run(layer_weights, batch, attention_mask=keep.long())
        yield from (row[:length] for row, length in zip(frames, lengths, strict=True))
        return
    for clip, length in zip(ready, lengths, strict=True):
        parts = np.array_split(np.arange(length), math.ceil(length / LONGEST_FRAMES))
        ends = [part[-1] * hop + window for part in parts[:-1]] + [len(clip)]
        inputs = (clip[None, part[0] * hop : end] for part, end in zip(parts, ends, strict=True))
        yield torch.cat([encoder.run(layer_weights, torch.from_numpy(x))[0] for x in inputs])


def window_and_hop(config: Any) -> tuple[int, int]:
    """Samples that the convolutions of wav2vec 2.0 and its kin see for a frame, and to the next."""
    window, hop = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        window += (kernel - 1) * hop
        hop *= stride
    return window, hop


def _of_windows(
    encoder: SpeechEncoder, clips: Sequence[Waveform], layer_weights: Tensor | None
) -> Iterator[Tensor]:
    """Frames of Whisper's encoder, which always sees 30 s: those whose middle lies in the clip.

    A longer clip is encoded window by window.
    """
    hop = 2 * encoder.extractor.hop_length  # a convolution takes every second log-mel frame
    size = encoder.config.max_source_positions * hop
    for clip in clips:
        frames = []
        for first in range(0, len(clip), size):
            part = clip[first : first + size]
            made = encoder.extractor(
                part, sampling_rate=SAMPLE_RATE, max_length=size, return_tensors="pt"
            )
            encoded = encoder.run(layer_weights, made["input_features"])
            frames.append(encoded[0, : math.ceil(len(part) / hop)])
        yield torch.cat(frames)


def _of_filterbanks(
    encoder: SpeechEncoder, clips: Sequence[Waveform], layer_weights: Tensor | None
) -> Iterator[Tensor]:
    """Frames of w2v-BERT 2.0, which sees pairs of log-mel frames normalized over the clip."""
    for clip in clips:
        made = encoder.extractor(clip, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        x = made["input_features"][:, : int(made["attention_mask"].sum())]  # (1, T, bands)
        if not x.shape[1]:
            raise RuntimeError(f"a clip has {len(clip)} samples, too few for a frame of the model")
        parts = x.split(LONGEST_FRAMES, dim=1)
        yield torch.cat([encoder.run(layer_weights, part)[0] for part in parts])


FAMILIES: dict[
    str, Callable[[SpeechEncoder, Sequence[Waveform], Tensor | None], Iterator[Tensor]]
] = {
    **dict.fromkeys(
        ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat"),
        _of_waveforms,
    ),
    "whisper": _of_windows,
    "wav2vec2-bert": _of_filterbanks,
}
"""transformers' `model_type` -> how its frames are made."""


def load_speech_encoder(name: str, *, random: bool = False, seed: int = 0) -> SpeechEncoder:
    """The encoder in a folder or of a name on the hub, on the CPU.

    Weights come from safetensors; where there are none, from `pytorch_model.bin`, which is read
    without running what is in it.

    Args:
        name: folder or hub name
        random: draw the weights; then a folder with a config.json is enough, and the name of a
            family in `FAMILIES` stands for transformers' default sizes
        seed: of these weights

    Raises:
        FileNotFoundError: if there is no such model, or a file is missing
        ModuleNotFoundError: without the extra `hf`
        ValueError: if it is no speech encoder that is known here, or weights are missing
    """
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"hf:{name} needs transformers: pip install 'emotion2vec[hf]'.", name=error.name
        ) from error
    if random and name in FAMILIES:
        config = transformers.AutoConfig.for_model(name)
    else:
        folder = model_folder(name, (CONFIG_NAME,) if random else (*JSON_NAMES, *WEIGHTS_NAMES))
        config = read_with(transformers.AutoConfig, folder, CONFIG_NAME)
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"hf:{name} is of the kind {config.model_type!r}; the speech encoders known here are "
            f"{', '.join(FAMILIES)}."
        )
    if random:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = transformers.AutoModel.from_config(config)
        extractor = _default_extractor(config)
    else:
        model = with_weights(name, folder, config)
        extractor = read_with(transformers.AutoFeatureExtractor, folder, "preprocessor_config.json")
    if config.model_type == "whisper":
        model = model.encoder
    return SpeechEncoder(model.eval().requires_grad_(False), extractor, config)


def model_folder(name: str, files: Sequence[str]) -> Path:
    """The folder of a model, with these of its files where it is on the hub.

    Raises:
        FileNotFoundError: if there is neither
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (OSError, ValueError) as error:  # not there, out of reach, no name of a repository
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise FileNotFoundError(
            f"hf:{name} is neither a folder nor a name on the hub that can be reached ({reason}); "
            f"give the folder of a transformers model, or check the name."
        ) from error


def read_with(reader: Any, folder: Path, file: str) -> Any:
    """The settings that transformers reads from a folder.

    Raises:
        FileNotFoundError: if `file`, where they stand, is not one that it can use
    """
    try:
        return reader.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise FileNotFoundError(
            f"{folder} has no {file} that transformers can use ({reason}); copy it from where the "
            "model comes from."
        ) from error


def _default_extractor(config: Any) -> Any:
    """Return what makes the input of a model that nobody trained."""
    import transformers

    if config.model_type == "whisper":
        return transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    if config.model_type == "wav2vec2-bert":
        return transformers.SeamlessM4TFeatureExtractor()
    return transformers.Wav2Vec2FeatureExtractor()


def with_weights(name: str, folder: Path, config: Any, classes: Any = None) -> nn.Module:
    """The model in a folder with all of its weights, float32.

    Args:
        name: what it is called in errors
        folder: with its weights
        config: transformers' one
        classes: transformers' mapping from configs to classes; encoders if None

    Raises:
        ValueError: if weights are missing
    """
    from transformers import MODEL_MAPPING

    classes = classes or MODEL_MAPPING
    load, options = classes[type(config)].from_pretrained, {"config": config}
    options |= {"dtype": torch.float32, "output_loading_info": True}
    if any(folder.glob("model*.safetensors")):
        model, found = load(folder, use_safetensors=True, **options)
    else:
        folder = model_folder(name, [PICKLE_NAME])
        weights = read_pickle(folder / PICKLE_NAME)
        model, found = load(None, state_dict=weights, **options)
    # What only training needs, or another part of the model, may be missing.
    wanted = "encoder." if config.model_type == "whisper" else ""
    missing = sorted(
        key
        for key in found["missing_keys"]
        if key.startswith(wanted) and key != "masked_spec_embed"
    )
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} weights of the architecture in {CONFIG_NAME}, such as "
            f"{missing[0]}; the two belong to different models."
        )
    return model
