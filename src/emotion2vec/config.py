"""Architecture of the encoder: one frozen dataclass, nothing about training runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

MODEL_TYPE = "emotion2vec"


@dataclass(frozen=True)
class Emotion2vecConfig:
    """Sizes, switches and dropouts of an encoder; the defaults are the published base model.

    Raises:
        ValueError: when made, if two fields contradict each other; the message names them.

    Source: Emotion2vec paper section 3 and data2vec 2.0's audio configuration.

    >>> Emotion2vecConfig().num_frames(16000)
    49
    >>> Emotion2vecConfig(embed_dim=100, num_heads=12)
    Traceback (most recent call last):
    ...
    ValueError: embed_dim is 100, which 12 heads (num_heads) do not divide; choose a multiple.
    """

    conv_channels: tuple[int, ...] = (512,) * 7
    """Channels of each convolution on the waveform."""
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    """Kernel sizes; with the strides below a frame sees 400 samples (25 ms at 16 kHz)."""
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    """Strides; their product, 320 samples, is the hop of 20 ms."""
    conv_norm: str = "layer"
    """"layer": LayerNorm over channels after each convolution, as in all published models.
    "group": one norm over the time of each channel, after the first convolution only: its
    statistics see the padding, so clips of a padded batch pass the convolutions one by one."""
    first_layer: str = "convolution"
    """"convolution": learned, as in all published models. "logmel": the log energies of
    conv_channels[0] mel bands in Hann windows of conv_kernels[0] samples, conv_strides[0] apart,
    which nothing has to be learned for: for models of little data."""
    normalize_waveform: bool = True
    """Whether callers give each clip zero mean and unit variance before the model."""

    embed_dim: int = 768
    num_heads: int = 12
    prenet_depth: int = 4
    """Blocks before the main ones; the teacher's targets never come from them."""
    depth: int = 8
    """Main blocks."""
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-5
    pre_norm: bool = False
    """Norm before attention and MLP instead of after the sum. Published models: after."""
    drop_residual: bool = False
    """Only with pre_norm: the block returns its MLP's output twice and forgets its input, as
    data2vec 2.0's released code does. True only for checkpoints that were trained so."""

    position_depth: int = 5
    position_width: int = 95
    """Frames that the whole stack of positional convolutions covers; each has
    max(3, width // depth) = 19 taps."""
    position_groups: int = 16
    position_pre_norm: bool = False

    num_utterance_tokens: int = 10
    """Learned tokens in front of the frames; data2vec 2.0's "extra tokens"."""
    alibi: bool = True
    """Bias attention by the distance between frames."""
    alibi_scale_per_head: bool = True
    alibi_scale_per_layer: bool = False

    attention_dropout: float = 0.1
    projection_dropout: float = 0.1
    """After the attention's output projection; data2vec 2.0's "encoder_dropout"."""
    activation_dropout: float = 0.0
    mlp_dropout: float = 0.1
    """After the MLP; data2vec 2.0's "post_mlp_drop"."""
    prenet_dropout: float = 0.1
    input_dropout: float = 0.0
    """Between prenet and main blocks."""

    decoder_dim: int = 384
    decoder_depth: int = 4
    decoder_kernel: int = 7
    decoder_groups: int = 16
    decoder_dropout: float = 0.1
    """On what enters the frame decoder."""

    labels: tuple[str, ...] = ()
    """Classes of a classifier, in the order of its outputs; empty for an encoder."""
    dimensions: tuple[str, ...] = ()
    """Values that a classifier answers beside or instead of classes, such as arousal."""

    def __post_init__(self) -> None:
        """Turn lists from JSON and TOML into tuples, then refuse contradictions."""
        for name in ("conv_channels", "conv_kernels", "conv_strides", "labels", "dimensions"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_sizes()
        self._check_divisors()

    def _check_sizes(self) -> None:
        lengths = {len(self.conv_channels), len(self.conv_kernels), len(self.conv_strides)}
        if len(lengths) != 1 or not self.conv_channels:
            raise ValueError(
                f"conv_channels, conv_kernels and conv_strides have {len(self.conv_channels)}, "
                f"{len(self.conv_kernels)} and {len(self.conv_strides)} entries; "
                "give each convolution one of each."
            )
        if self.conv_norm not in ("layer", "group"):
            raise ValueError(f'conv_norm is {self.conv_norm!r}; choose "layer" or "group".')
        self._check_first_layer()
        for name in (
            *("embed_dim", "num_heads", "depth", "position_depth", "position_groups"),
            *("decoder_dim", "decoder_groups", "decoder_kernel"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("prenet_depth", "num_utterance_tokens", "decoder_depth"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative.")
        if self.drop_residual and not self.pre_norm:
            raise ValueError("drop_residual is true but pre_norm is false; set both or neither.")
        for name in (field.name for field in fields(self) if field.name.endswith("_dropout")):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be in [0, 1).")

    def _check_first_layer(self) -> None:
        if self.first_layer not in ("convolution", "logmel"):
            raise ValueError(
                f'first_layer is {self.first_layer!r}; choose "convolution" or "logmel".'
            )
        if self.first_layer == "logmel" and (
            len(self.conv_channels) == 1 or self.conv_norm == "group"
        ):
            raise ValueError(
                'first_layer is "logmel", which needs a convolution after it and conv_norm '
                '"layer"; give conv_channels, conv_kernels and conv_strides two entries or more.'
            )

    def _check_divisors(self) -> None:
        for name, divisor, of_what in (
            ("embed_dim", "num_heads", "heads"),
            ("embed_dim", "position_groups", "groups"),
            ("embed_dim", "decoder_groups", "groups"),
            ("decoder_dim", "decoder_groups", "groups"),
        ):
            if getattr(self, name) % getattr(self, divisor):
                raise ValueError(
                    f"{name} is {getattr(self, name)}, which {getattr(self, divisor)} {of_what} "
                    f"({divisor}) do not divide; choose a multiple."
                )

    @property
    def hop_samples(self) -> int:
        """Samples from one frame to the next: 320, which is 20 ms at 16 kHz."""
        hop = 1
        for stride in self.conv_strides:
            hop *= stride
        return hop

    @property
    def min_samples(self) -> int:
        """Samples that the first frame needs: 400, which is 25 ms at 16 kHz."""
        samples = 1
        for kernel, stride in zip(
            reversed(self.conv_kernels), reversed(self.conv_strides), strict=True
        ):
            samples = (samples - 1) * stride + kernel
        return samples

    @property
    def position_kernel(self) -> int:
        """Taps of each positional convolution."""
        return max(3, self.position_width // self.position_depth)

    def num_frames(self, num_samples: Any) -> Any:
        """Frames that come out of a number of samples; an int, or an integer tensor of any shape.

        >>> [Emotion2vecConfig().num_frames(n) for n in (399, 400, 5000, 48123)]
        [0, 1, 15, 150]
        """
        for kernel, stride in zip(self.conv_kernels, self.conv_strides, strict=True):
            num_samples = (num_samples - kernel) // stride + 1
        return max(num_samples, 0) if isinstance(num_samples, int) else num_samples.clamp_min(0)

    def to_dict(self) -> dict[str, Any]:
        """All fields and the `model_type` by which transformers finds its classes."""
        return {"model_type": MODEL_TYPE, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Emotion2vecConfig:
        """The config in a `config.json`; keys that other libraries add there are passed over.

        Raises:
            ValueError: if `values` describes another kind of model.

        >>> Emotion2vecConfig.from_dict({"model_type": "emotion2vec", "depth": 2}).depth
        2
        """
        kind = values.get("model_type") if isinstance(values, Mapping) else type(values).__name__
        if kind != MODEL_TYPE:
            raise ValueError(
                f"this config describes a {kind!r}, not {MODEL_TYPE!r}; "
                "point at a folder that save_pretrained wrote."
            )
        names = {field.name for field in fields(cls)}
        try:
            return cls(**{key: value for key, value in values.items() if key in names})
        except TypeError as error:
            raise ValueError(
                f"this config has a value of the wrong type ({error}); save the model again."
            ) from error


def is_unused(label: str) -> bool:
    """Whether a label of a published model stands for an output that was never trained.

    >>> is_unused("unuse_0"), is_unused("<unk>")
    (True, False)
    """
    return label.startswith("unuse")
