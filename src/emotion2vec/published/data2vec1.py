"""How data2vec 1 names things, in fairseq's checkpoints and in transformers' folders.

Its audio model is our encoder with no prenet, no ALiBi and no utterance tokens: a starting point
that knows speech but no emotion. Query, key and value are three layers there and one here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from emotion2vec.config import Emotion2vecConfig
from emotion2vec.published.reference import (
    Origin,
    Row,
    affine,
    conv_norm,
    conv_rows,
    parse_conv_spec,
    read_fields,
)

_FAIRSEQ = {
    "encoder_embed_dim": "embed_dim",
    "encoder_attention_heads": "num_heads",
    "encoder_layers": "depth",
    "conv_pos": "position_width",
    "pos_conv_depth": "position_depth",
    "conv_pos_groups": "position_groups",
    "layer_norm_first": "pre_norm",
    "normalize": "normalize_waveform",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
}
_TRANSFORMERS = {
    "hidden_size": "embed_dim",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "depth",
    "num_conv_pos_embeddings": "position_depth",
    "num_conv_pos_embedding_groups": "position_groups",
    "layer_norm_eps": "norm_eps",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
}
# Ours -> what fairseq and what transformers call it inside a block.
_BLOCK = {
    "norm1": ("self_attn_layer_norm", "layer_norm"),
    "attention.projection": ("self_attn.out_proj", "attention.out_proj"),
    "norm2": ("final_layer_norm", "final_layer_norm"),
    "mlp.fc1": ("fc1", "feed_forward.intermediate_dense"),
    "mlp.fc2": ("fc2", "feed_forward.output_dense"),
}
_FIXED: dict[str, Any] = {"prenet_depth": 0, "alibi": False, "num_utterance_tokens": 0}


def config_from_data2vec1(model_conf: Mapping[str, Any]) -> Emotion2vecConfig:
    """The architecture in the `cfg.model` of a fairseq data2vec 1 audio checkpoint.

    Raises:
        ValueError: if the model computes something that this encoder does not

    >>> config = config_from_data2vec1({"encoder_embed_dim": 48, "encoder_attention_heads": 4})
    >>> config.embed_dim, config.depth, config.alibi
    (48, 12, False)
    """
    conf = {"encoder_layers": 12, "conv_pos": 95, "pos_conv_depth": 5, **model_conf}
    _refuse(conf, layer_type="transformer", activation_fn="gelu", conv_bias=False)
    values = {**read_fields(conf, _FAIRSEQ), **_dropouts(conf.get("dropout"))}
    if conf.get("conv_feature_layers"):
        values |= parse_conv_spec(conf["conv_feature_layers"])
    values["conv_norm"] = conv_norm(conf.get("extractor_mode") or "layer_norm")
    if conf.get("encoder_ffn_embed_dim"):
        values["mlp_ratio"] = conf["encoder_ffn_embed_dim"] / values["embed_dim"]
    return Emotion2vecConfig(**values, **_FIXED)


def config_from_transformers(
    values: Mapping[str, Any], preprocessor: Mapping[str, Any] | None = None
) -> Emotion2vecConfig:
    """The architecture in the `config.json` of a transformers data2vec-audio folder.

    Args:
        values: of `config.json`
        preprocessor: of `preprocessor_config.json`; it says whether clips are normalized

    Raises:
        ValueError: if the model computes something that this encoder does not

    >>> config_from_transformers({"hidden_size": 48, "num_attention_heads": 4}).embed_dim
    48
    """
    conf = {"num_hidden_layers": 12, "num_conv_pos_embeddings": 5, "hidden_size": 768, **values}
    _refuse(conf, hidden_act="gelu", feat_extract_activation="gelu", conv_bias=False)
    ours = {**read_fields(conf, _TRANSFORMERS), **_dropouts(conf.get("hidden_dropout"))}
    # Ours is the width of the whole stack, theirs the kernel of each layer.
    ours["position_width"] = int(conf.get("conv_pos_kernel_size") or 19) * ours["position_depth"]
    for name in ("conv_dim", "conv_kernel", "conv_stride"):
        if conf.get(name):
            ours[{"conv_dim": "conv_channels"}.get(name, f"{name}s")] = tuple(conf[name])
    ours["mlp_ratio"] = (conf.get("intermediate_size") or 4 * ours["embed_dim"]) / ours["embed_dim"]
    ours["normalize_waveform"] = bool((preprocessor or {}).get("do_normalize", True))
    return Emotion2vecConfig(**ours, **_FIXED)


def data2vec1_table(config: Emotion2vecConfig, *, transformers: bool = False) -> dict[str, Origin]:
    """Every weight of `Emotion2vecClassifier`'s encoder; as `reference.reference_table`.

    Args:
        config: of the model
        transformers: whether the names are those of transformers, or of fairseq

    >>> data2vec1_table(config_from_data2vec1({}))["encoder.context.blocks.0.norm1.weight"]
    Origin(names=('encoder.layers.0.self_attn_layer_norm.weight',), shape=(768,))
    """
    rows = _transformers_frames(config) if transformers else _fairseq_frames(config)
    table = {ours: Origin((theirs,), shape) for ours, theirs, shape in rows}
    width, hidden = config.embed_dim, int(config.embed_dim * config.mlp_ratio)
    shapes = {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden),
              "attention.projection": (width, width)}  # fmt: skip
    attention = "attention" if transformers else "self_attn"
    for i in range(config.depth):
        ours, theirs = f"encoder.context.blocks.{i}", f"encoder.layers.{i}"
        for part, names in _BLOCK.items():
            shape = shapes.get(part, (width,))
            for row in affine(f"{ours}.{part}", f"{theirs}.{names[transformers]}", shape):
                table[row[0]] = Origin((row[1],), row[2])
        for kind, shape in (("weight", (3 * width, width)), ("bias", (3 * width,))):
            qkv = tuple(f"{theirs}.{attention}.{name}_proj.{kind}" for name in "qkv")
            table[f"{ours}.attention.qkv.{kind}"] = Origin(qkv, shape)
    return table


def _fairseq_frames(config: Emotion2vecConfig) -> Iterator[Row]:
    """All but the blocks, by fairseq's names."""
    yield from conv_rows(config, "feature_extractor.conv_layers")
    yield from _around(config, "layer_norm", "post_extract_proj", "encoder.pos_conv.{}.0")


def _transformers_frames(config: Emotion2vecConfig) -> Iterator[Row]:
    """All but the blocks, by transformers' names."""
    for ours, theirs, shape in conv_rows(config, "feature_extractor.conv_layers"):
        theirs = theirs.replace(".2.1.", ".layer_norm.").replace(".0.weight", ".conv.weight")
        yield ours, theirs, shape
    projection = "feature_projection."
    yield from _around(
        config,
        f"{projection}layer_norm",
        f"{projection}projection",
        "encoder.pos_conv_embed.layers.{}.conv",
    )


def _around(config: Emotion2vecConfig, norm: str, linear: str, position: str) -> Iterator[Row]:
    width, channels = config.embed_dim, config.conv_channels[-1]
    yield from affine("encoder.feature_projection.norm", norm, (channels,))
    yield from affine("encoder.feature_projection.linear", linear, (width, channels))
    for i in range(config.position_depth):
        shape = (width, width // config.position_groups, config.position_kernel)
        ours = f"encoder.context.positional_encoder.layers.{i}.conv"
        yield from affine(ours, position.format(i), shape)
    # One norm: after the blocks of a pre-norm model, before those of a post-norm model.
    ours = "encoder.context.norm" if config.pre_norm else "encoder.context.prenet_norm"
    yield from affine(ours, "encoder.layer_norm", (width,))


def _dropouts(dropout: float | None) -> dict[str, float]:
    """Return the places where data2vec 1 has its one dropout, under our names."""
    if dropout is None:
        return {}
    return dict.fromkeys(("projection_dropout", "mlp_dropout", "prenet_dropout"), float(dropout))


def _refuse(conf: Mapping[str, Any], **wanted: Any) -> None:
    """Raise for settings under which data2vec 1 computes what our model does not."""
    for name, value in wanted.items():
        if conf.get(name, value) != value:
            raise ValueError(
                f"{name} is {conf[name]!r} in the settings; this encoder has only {value!r}."
            )
