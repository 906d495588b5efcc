"""Reference configurations and weights -> ours, in memory.

The reference is what FunASR and fairseq publish: a nested `model_conf` and a state dict in which
the encoder is `modality_encoders.AUDIO.*` and `blocks.*`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

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
_RENAMES = (
    (r"modality_encoders\.AUDIO\.local_encoder\.conv_layers\.(\d+)\.0\.", r"convs.\1.conv."),
    (
        r"modality_encoders\.AUDIO\.local_encoder\.conv_layers\.(\d+)\.2\.(?:1\.)?",
        r"convs.\1.norm.",
    ),
    (r"convs\.", "feature_encoder.layers."),
    (r"modality_encoders\.AUDIO\.project_features\.1\.", "feature_projection.norm."),
    (r"modality_encoders\.AUDIO\.project_features\.2\.", "feature_projection.linear."),
    (r"modality_encoders\.AUDIO\.extra_tokens$", "context.utterance_tokens"),
    (r"modality_encoders\.AUDIO\.alibi_scale$", "context.alibi_scale"),
    (r"modality_encoders\.AUDIO\.context_encoder\.norm\.", "context.prenet_norm."),
    (r"modality_encoders\.AUDIO\.context_encoder\.blocks\.", "context.prenet."),
    (r"modality_encoders\.AUDIO\.decoder\.blocks\.(\d+)\.0\.", r"decoder.layers.\1.conv."),
    (r"modality_encoders\.AUDIO\.decoder\.proj\.", "decoder.projection."),
    (r"^blocks\.", "context.main."),
    (r"^norm\.", "context.norm."),
    (r"^proj\.", "classifier."),
    (r"\.attn\.proj\.", ".attention.projection."),
    (r"\.attn\.qkv\.", ".attention.qkv."),
)


def config_from_reference(
    model_conf: Mapping[str, Any], labels: Sequence[str] = (), *, drop_residual: bool = True
) -> Emotion2vecConfig:
    """The architecture in a reference `model_conf` (FunASR's yaml, fairseq's `cfg.model`).

    Args:
        model_conf: nested fields; training settings in it are passed over
        labels: classes of the checkpoint's classifier, if it has one
        drop_residual: whether a pre-norm model forgets its residual, as all were trained

    Raises:
        ValueError: if the model computes something that this encoder does not

    >>> conf = {"embed_dim": 48, "num_heads": 12, "depth": 3, "modalities": {"audio": {}}}
    >>> config_from_reference(conf).depth
    3
    """
    audio = model_conf["modalities"]["audio"]
    decoder = audio.get("decoder") or {}
    if audio.get("learned_alibi"):
        raise ValueError("learned_alibi is true; learned bias tables exist in no released model.")
    if model_conf.get("end_of_block_targets"):
        raise ValueError("end_of_block_targets is true; targets here are the MLPs' outputs.")
    values: dict[str, Any] = {}
    for source, names in ((model_conf, _MODEL), (audio, _AUDIO), (decoder, _DECODER)):
        values |= {new: source[old] for old, new in names.items() if source.get(old) is not None}
    if "feature_encoder_spec" in audio:
        values |= parse_conv_spec(audio["feature_encoder_spec"])
    if audio.get("extractor_mode", "layer_norm") != "layer_norm":
        values["conv_norm"] = "group"
    values["drop_residual"] = drop_residual and values.get("pre_norm", False)
    return Emotion2vecConfig(**values, labels=tuple(labels))


def parse_conv_spec(spec: str) -> dict[str, tuple[int, ...]]:
    """Channels, kernels and strides in the reference's convolution spec, without running it.

    >>> parse_conv_spec("[(512, 10, 5)] + [(512, 3, 2)] * 2")["conv_kernels"]
    (10, 3, 3)
    """
    layers: list[tuple[int, int, int]] = []
    for term, times in re.findall(r"(\[[^\]]*\])(?:\s*\*\s*(\d+))?", spec):
        layers += list(ast.literal_eval(term)) * int(times or 1)
    if not layers or any(len(layer) != 3 for layer in layers):
        raise ValueError(f"{spec!r} is no list of (channels, kernel, stride); check the config.")
    channels, kernels, strides = zip(*layers, strict=True)
    return {"conv_channels": channels, "conv_kernels": kernels, "conv_strides": strides}


def weights_from_reference(
    state: Mapping[str, Tensor], config: Emotion2vecConfig
) -> dict[str, Tensor]:
    """Reference weights under our names: `encoder.*` parts without prefix, decoder, classifier.

    Takes the student's names and the teacher's (`_ema`) alike.

    Raises:
        ValueError: that lists the names it does not know
    """
    weights = {}
    for name, value in state.items():
        new = rename_reference(name, config)
        weights[new] = value.flatten(1) if new == "context.alibi_scale" else value
    unknown = [name for name in weights if name.startswith(("modality_encoders.", "_"))]
    if unknown:
        raise ValueError(f"{len(unknown)} weights are unknown: {', '.join(unknown[:8])}.")
    return weights


def rename_reference(name: str, config: Emotion2vecConfig) -> str:
    """Our name of a reference weight.

    >>> rename_reference("blocks.0.attn.proj.bias", Emotion2vecConfig(prenet_depth=4))
    'context.blocks.4.attention.projection.bias'
    """
    prefix = r"^modality_encoders\.AUDIO\.relative_positional_encoder\."
    # A norm before the positional convolutions makes them the second part of a sequence.
    nested = r"1\." if config.position_pre_norm else ""
    positions = [(rf"{prefix}{nested}(\d+)\.0\.", r"POS\1."), (rf"{prefix}0\.", "PRE")]
    for pattern, replacement in (*positions, *_RENAMES):
        name = re.sub(pattern, replacement, name)
    if name.startswith("POS"):  # the reference counts from 1: its index 0 is a transpose
        layer, parameter = name[3:].split(".", 1)
        return f"context.positional_encoder.layers.{int(layer) - 1}.conv.{parameter}"
    name = re.sub("^PRE", "context.positional_encoder.pre_norm.", name)
    name = re.sub(r"^context\.prenet\.", "context.blocks.", name)
    main = re.match(r"^context\.main\.(\d+)\.(.*)", name)
    if main:
        return f"context.blocks.{int(main[1]) + config.prenet_depth}.{main[2]}"
    return name
