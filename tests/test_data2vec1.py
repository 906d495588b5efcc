"""data2vec 1 as a starting point: equal to transformers' own model, from both layouts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from emotion2vec import Emotion2vec, convert_checkpoint
from emotion2vec.published.data2vec1 import config_from_data2vec1, config_from_transformers

transformers = pytest.importorskip("transformers")

TINY = {
    "hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 120,
    "conv_dim": (32,) * 7, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 9,
}  # fmt: skip
# Fairseq's names of the same parts, in the order in which they replace transformers'.
FAIRSEQ = (
    (r"\.conv_layers\.(\d+)\.conv\.", r".conv_layers.\1.0."),
    (r"\.conv_layers\.(\d+)\.layer_norm\.", r".conv_layers.\1.2.1."),
    (r"^feature_projection\.layer_norm\.", "layer_norm."),
    (r"^feature_projection\.projection\.", "post_extract_proj."),
    (r"\.pos_conv_embed\.layers\.(\d+)\.conv\.", r".pos_conv.\1.0."),
    (r"(\.layers\.\d+)\.layer_norm\.", r"\1.self_attn_layer_norm."),
    (r"\.attention\.", ".self_attn."),
    (r"\.feed_forward\.intermediate_dense\.", ".fc1."),
    (r"\.feed_forward\.output_dense\.", ".fc2."),
    (r"^masked_spec_embed$", "mask_emb"),
)


@pytest.fixture
def theirs() -> Any:
    config = transformers.Data2VecAudioConfig(**TINY, mask_time_prob=0.05)
    model = transformers.Data2VecAudioModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # no zeros, no ones: every weight shows
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model


def compare(folder: Path, theirs: Any) -> Emotion2vec:
    model = Emotion2vec.from_pretrained(folder)
    clip = torch.randn(2, 8000)
    with torch.no_grad():
        ours = model(clip, output_hidden_states=True)
        expected = theirs(clip, output_hidden_states=True)
    torch.testing.assert_close(
        ours.last_hidden_state, expected.last_hidden_state, atol=2e-5, rtol=0
    )
    for mine, other in zip(ours.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-5, rtol=0)
    assert ours.utterance_tokens.shape == (2, 0, 48)
    return model


def fairseq_file(path: Path, state: dict[str, Tensor], **changes: Any) -> Path:
    """The same weights as fairseq's trainer saves them."""
    weights: dict[str, Any] = {}
    for name, value in state.items():
        for pattern, replacement in FAIRSEQ:
            name = re.sub(pattern, replacement, name)
        weights[name] = value
    weights["final_proj.0.weight"] = torch.ones(48, 48)
    weights["_ema"] = {"0.fc1.weight": torch.ones(1)}
    conf = {
        "_name": "data2vec_audio", "extractor_mode": "layer_norm", "encoder_layers": 3,
        "encoder_embed_dim": 48, "encoder_ffn_embed_dim": 120, "encoder_attention_heads": 4,
        "conv_feature_layers": "[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32,2,2)] + [(32,2,2)]",
        "conv_pos": 27, "pos_conv_depth": 3, "conv_pos_groups": 16, "layer_norm_first": False,
        "dropout": 0.2, **changes,
    }  # fmt: skip
    torch.save({"cfg": {"model": conf, "task": {"normalize": True}}, "model": weights}, path)
    return path


def test_a_transformers_folder(theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path / "in")
    done = convert_checkpoint(tmp_path / "in", tmp_path / "out")
    assert done.kind == "encoder" and done.dropped == {"pre-training head": ("masked_spec_embed",)}
    model = compare(tmp_path / "out", theirs)
    assert model.config.prenet_depth == 0 and not model.config.alibi
    (tmp_path / "in" / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "in" / "pytorch_model.bin")
    compare(convert_checkpoint(tmp_path / "in", tmp_path / "out").folder, theirs)


def test_a_transformers_model_with_another_head(theirs: Any, tmp_path: Path) -> None:
    model = transformers.Data2VecAudioForCTC(transformers.Data2VecAudioConfig(**TINY)).eval()
    model.save_pretrained(tmp_path / "in")
    done = convert_checkpoint(tmp_path / "in", tmp_path / "out")
    assert done.dropped["head of another task"] == ("lm_head.bias", "lm_head.weight")
    compare(tmp_path / "out", model.data2vec_audio)


def test_a_fairseq_file(theirs: Any, tmp_path: Path) -> None:
    file = fairseq_file(tmp_path / "d2v1.pt", theirs.state_dict())
    done = convert_checkpoint(file, tmp_path / "out")
    assert done.dropped == {
        "teacher": ("_ema.0.fc1.weight",),
        "pre-training head": ("final_proj.0.weight", "mask_emb"),
    }
    config = compare(tmp_path / "out", theirs).config
    assert (config.projection_dropout, config.mlp_dropout, config.prenet_dropout) == (0.2,) * 3


def test_query_key_and_value_are_all_needed(theirs: Any, tmp_path: Path) -> None:
    state = theirs.state_dict()
    del state["encoder.layers.1.attention.k_proj.bias"]
    file = fairseq_file(tmp_path / "d2v1.pt", state)
    with pytest.raises(ValueError, match=r"missing encoder\.layers\.1\.self_attn\.k_proj\.bias"):
        convert_checkpoint(file, tmp_path / "out")


def test_other_models_than_released_are_refused(theirs: Any, tmp_path: Path) -> None:
    file = fairseq_file(tmp_path / "d2v1.pt", theirs.state_dict(), layer_type="conformer")
    with pytest.raises(ValueError, match="layer_type is 'conformer' .* only 'transformer'"):
        convert_checkpoint(file, tmp_path / "out")
    with pytest.raises(ValueError, match="conv_bias is True"):
        config_from_transformers({"conv_bias": True})


def test_the_published_sizes_are_the_defaults() -> None:
    ours = config_from_data2vec1({"encoder_embed_dim": 768, "encoder_attention_heads": 12})
    theirs = config_from_transformers(transformers.Data2VecAudioConfig().to_dict())
    for name in ("embed_dim", "depth", "num_heads", "mlp_ratio", "position_kernel", "conv_kernels"):
        assert getattr(ours, name) == getattr(theirs, name), name
    large = config_from_data2vec1({"encoder_embed_dim": 1024, "encoder_layers": 24,
                                   "encoder_attention_heads": 16, "layer_norm_first": True,
                                   "encoder_ffn_embed_dim": 4096})  # fmt: skip
    assert large.pre_norm and not large.drop_residual and large.depth == 24
