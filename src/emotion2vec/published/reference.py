"""How the reference names things: its settings as our config, its weights as our names.

The reference is what FunASR and fairseq publish for emotion2vec and data2vec 2.0: a nested
`model_conf` and a state dict in which the encoder is `modality_encoders.AUDIO.*` and `blocks.*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from emotion2vec.config import Emotion2vecConfig

# The reference's name of a field -> ours, by where it stands in `model_conf`.
_MODEL = {
    "embed_dim": "embed_dim",
    "num_heads": "num_heads",
    "depth": "depth",
    "mlp_ratio": "mlp_ratio",
    "norm_eps": "norm_eps",
    "normalize": "normalize_waveform",
    "layer_norm_first": "pre_norm",
    "attention_dropout": "attention_dropout",
    "encoder_dropout": "projection_dropout",
    "activation_dropout": "activation_dropout",
    "post_mlp_drop": "mlp_dropout",
    "dropout_input": "input_dropout",
}
_AUDIO = {
    "prenet_depth": "prenet_depth",
    "prenet_dropout": "prenet_dropout",
    "conv_pos_depth": "position_depth",
    "conv_pos_width": "position_width",
    "conv_pos_groups": "position_groups",
    "conv_pos_pre_ln": "position_pre_norm",
    "num_extra_tokens": "num_utterance_tokens",
    "use_alibi_encoder": "alibi",
    "learned_alibi_scale_per_head": "alibi_scale_per_head",
    "learned_alibi_scale_per_layer": "alibi_scale_per_layer",
}
_DECODER = {
    "decoder_dim": "decoder_dim",
    "decoder_layers": "decoder_depth",
    "decoder_kernel": "decoder_kernel",
    "decoder_groups": "decoder_groups",
    "input_dropout": "decoder_dropout",
}
_UNREAD = ("${", "???")  # omegaconf: a value that stands elsewhere, or is missing
_ENCODER = "modality_encoders.AUDIO."
_CONV_TERM = re.compile(r"\[((?:\(\d+,\d+,\d+\),?)+)\](?:\*(\d{1,2}))?")


class Origin(NamedTuple):
    """Where one of our weights comes from."""

    names: tuple[str, ...]
    """of the reference; several are put together along the first axis"""
    shape: tuple[int, ...]
    """of ours"""


def config_from_reference(
    model_conf: Mapping[str, Any], labels: Sequence[str] = (), *, drop_residual: bool = True
) -> Emotion2vecConfig:
    """The architecture in a reference `model_conf` (FunASR's yaml, fairseq's `cfg.model`).

    Args:
        model_conf: nested fields; training settings in it are passed over
        labels: classes of the checkpoint's classifier, if it has one
        drop_residual: whether a pre-norm model forgets its residual, as all were trained

    Raises:
        ValueError: if the model computes something that this encoder does not, or a field is no
            number where one is needed

    >>> conf = {"embed_dim": 48, "num_heads": 12, "depth": "3", "modalities": {"audio": {}}}
    >>> config_from_reference(conf).depth
    3
    """
    audio = (model_conf.get("modalities") or {}).get("audio")
    if not isinstance(audio, Mapping):
        raise ValueError("the settings have no modalities.audio; this is no audio model.")
    decoder = audio.get("decoder") or {}
    _refuse_what_differs(model_conf, audio, decoder)
    values = {
        **read_fields(model_conf, _MODEL),
        **read_fields(audio, _AUDIO),
        **read_fields(decoder, _DECODER),
    }
    if audio.get("feature_encoder_spec"):
        values |= parse_conv_spec(audio["feature_encoder_spec"])
    values["conv_norm"] = conv_norm(audio.get("extractor_mode") or "layer_norm")
    values["drop_residual"] = drop_residual and values.get("pre_norm", False)
    return Emotion2vecConfig(**values, labels=tuple(labels))


def _refuse_what_differs(
    model: Mapping[str, Any], audio: Mapping[str, Any], decoder: Mapping[str, Any]
) -> None:
    """Raise for settings under which the reference computes what our model does not."""
    heads = audio.get("num_alibi_heads")
    for wrong, what in (
        (audio.get("learned_alibi"), "learned_alibi is true, a learned bias table"),
        (model.get("end_of_block_targets"), "end_of_block_targets is true"),
        (model.get("norm_affine") is False, "norm_affine is false, norms without weights"),
        (audio.get("fixed_positions"), "fixed_positions is true"),
        (
            isinstance(heads, int) and heads != model.get("num_heads", heads),
            f"num_alibi_heads is {heads}, but num_heads {model.get('num_heads')}",
        ),
        (decoder.get("decoder_residual") is False, "decoder_residual is false"),
        (decoder.get("projection_layers", 1) != 1, "the decoder has several projection layers"),
        (
            decoder.get("add_positions_masked") or decoder.get("add_positions_all"),
            "the decoder adds positions",
        ),
    ):
        if wrong:
            raise ValueError(f"{what}; no released model has that, and this encoder does not.")


def read_fields(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The fields of `Emotion2vecConfig` in `settings`, each of its type; their names -> ours.

    PyYAML reads `1e-05` as a text; what is none, or left open by omegaconf, is not there.

    Raises:
        ValueError: if a value is no number where one is needed

    >>> read_fields({"eps": "1e-05", "depth": None}, {"eps": "norm_eps", "depth": "depth"})
    {'norm_eps': 1e-05}
    """
    values: dict[str, Any] = {}
    for theirs, ours in names.items():
        value = settings.get(theirs)
        if value is None or (isinstance(value, str) and value.startswith(_UNREAD)):
            continue
        default = getattr(Emotion2vecConfig, ours)
        try:
            number = float(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{theirs} is {value!r} in the settings; a number is needed."
            ) from error
        values[ours] = number if isinstance(default, float) else type(default)(number)
        if values[ours] != number:
            raise ValueError(f"{theirs} is {value!r} in the settings; a whole number is needed.")
    return values


def conv_norm(extractor_mode: str) -> str:
    """Our name of the convolutions' norm.

    Raises:
        ValueError: for a mode that the reference does not have

    >>> conv_norm("default")
    'group'
    """
    norms = {"layer_norm": "layer", "default": "group"}
    if extractor_mode not in norms:
        raise ValueError(f"extractor_mode is {extractor_mode!r}; known are {sorted(norms)}.")
    return norms[extractor_mode]


def parse_conv_spec(spec: str) -> dict[str, tuple[int, ...]]:
    """Channels, kernels and strides in the reference's convolution spec, without running it.

    Raises:
        ValueError: if it is anything but a sum of lists of (channels, kernel, stride)

    >>> parse_conv_spec("[(512, 10, 5)] + [(512, 3, 2)] * 2")["conv_kernels"]
    (10, 3, 3)
    """
    layers: list[tuple[int, ...]] = []
    for term in re.sub(r"\s", "", str(spec)).split("+"):
        match = _CONV_TERM.fullmatch(term)
        if not match:
            raise ValueError(
                f"{spec!r} is no list of (channels, kernel, stride); check the settings."
            )
        numbers = [int(number) for number in re.findall(r"\d+", match[1])]
        triples = [tuple(numbers[i : i + 3]) for i in range(0, len(numbers), 3)]
        layers += triples * int(match[2] or 1)
    channels, kernels, strides = zip(*layers, strict=True)
    return {"conv_channels": channels, "conv_kernels": kernels, "conv_strides": strides}


def reference_table(config: Emotion2vecConfig) -> dict[str, Origin]:
    """Every weight of `Emotion2vecStudent` and, with labels, of `Emotion2vecClassifier`.

    Args:
        config: of the model that the reference's weights are of

    Returns:
        our name -> the reference's name, and our shape. The ALiBi scale is flat with us.

    >>> reference_table(Emotion2vecConfig(prenet_depth=4))["encoder.context.blocks.5.mlp.fc1.bias"]
    Origin(names=('blocks.1.mlp.fc1.bias',), shape=(3072,))
    """
    rows = [*_frames(config), *_context(config), *_decoder(config)]
    if config.labels:
        rows += affine("classifier", "proj", (len(config.labels), config.embed_dim))
    return {ours: Origin((theirs,), shape) for ours, theirs, shape in rows}


Row = tuple[str, str, tuple[int, ...]]


def affine(ours: str, theirs: str, shape: tuple[int, ...]) -> list[Row]:
    """Rows (our name, theirs, shape) of a layer: a weight of `shape`, a bias of its first size."""
    return [
        (f"{ours}.weight", f"{theirs}.weight", shape),
        (f"{ours}.bias", f"{theirs}.bias", shape[:1]),
    ]


def conv_rows(config: Emotion2vecConfig, theirs: str) -> Iterator[Row]:
    """Rows of the convolutions on the waveform, which fairseq names `theirs`.{i}.0 and .2."""
    inputs = (1, *config.conv_channels[:-1])
    for i, (channels, kernel) in enumerate(
        zip(config.conv_channels, config.conv_kernels, strict=True)
    ):
        layer = f"encoder.feature_encoder.layers.{i}"
        yield f"{layer}.conv.weight", f"{theirs}.{i}.0.weight", (channels, inputs[i], kernel)
        if config.conv_norm == "layer":  # between two transposes, so the second of its sequence
            yield from affine(f"{layer}.norm", f"{theirs}.{i}.2.1", (channels,))
        elif i == 0:
            yield from affine(f"{layer}.norm", f"{theirs}.{i}.2", (channels,))


def _frames(config: Emotion2vecConfig) -> Iterator[Row]:
    """From the waveform to projected frames."""
    width, channels = config.embed_dim, config.conv_channels[-1]
    yield from conv_rows(config, f"{_ENCODER}local_encoder.conv_layers")
    yield from affine(
        "encoder.feature_projection.norm", f"{_ENCODER}project_features.1", (channels,)
    )
    yield from affine(
        "encoder.feature_projection.linear", f"{_ENCODER}project_features.2", (width, channels)
    )


def _context(config: Emotion2vecConfig) -> Iterator[Row]:
    """Positions, tokens, ALiBi scale and blocks: what the teacher copies."""
    width, depth = config.embed_dim, config.prenet_depth + config.depth
    ours, theirs = "encoder.context", f"{_ENCODER}relative_positional_encoder"
    if config.position_pre_norm:
        yield from affine(f"{ours}.positional_encoder.pre_norm", f"{theirs}.0", (width,))
        theirs += ".1"  # the norm makes the convolutions the second part of a sequence
    for i in range(config.position_depth):  # counted from 1: index 0 is a transpose
        shape = (width, width // config.position_groups, config.position_kernel)
        yield from affine(
            f"{ours}.positional_encoder.layers.{i}.conv", f"{theirs}.{i + 1}.0", shape
        )
    if config.num_utterance_tokens:
        shape = (1, config.num_utterance_tokens, width)
        yield f"{ours}.utterance_tokens", f"{_ENCODER}extra_tokens", shape
    if config.alibi:
        layers = depth if config.alibi_scale_per_layer else 1
        heads = config.num_heads if config.alibi_scale_per_head else 1
        yield f"{ours}.alibi_scale", f"{_ENCODER}alibi_scale", (layers, heads)
    if config.pre_norm:
        yield from affine(f"{ours}.norm", "norm", (width,))
    else:
        yield from affine(f"{ours}.prenet_norm", f"{_ENCODER}context_encoder.norm", (width,))
    for i in range(depth):
        main = i - config.prenet_depth
        block = f"blocks.{main}" if main >= 0 else f"{_ENCODER}context_encoder.blocks.{i}"
        yield from _block(config, f"{ours}.blocks.{i}", block)


def _block(config: Emotion2vecConfig, ours: str, theirs: str) -> Iterator[Row]:
    width = config.embed_dim
    hidden = int(width * config.mlp_ratio)
    yield from affine(f"{ours}.norm1", f"{theirs}.norm1", (width,))
    yield from affine(f"{ours}.attention.qkv", f"{theirs}.attn.qkv", (3 * width, width))
    yield from affine(f"{ours}.attention.projection", f"{theirs}.attn.proj", (width, width))
    yield from affine(f"{ours}.norm2", f"{theirs}.norm2", (width,))
    yield from affine(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1", (hidden, width))
    yield from affine(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2", (width, hidden))


def _decoder(config: Emotion2vecConfig) -> Iterator[Row]:
    widths = (config.embed_dim, *[config.decoder_dim] * config.decoder_depth)
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        shape = (outputs, inputs // config.decoder_groups, config.decoder_kernel)
        theirs = f"{_ENCODER}decoder.blocks.{i}.0"
        yield from affine(f"decoder.layers.{i}.conv", theirs, shape)
    yield from affine(
        "decoder.projection", f"{_ENCODER}decoder.proj", (config.embed_dim, widths[-1])
    )
