"""The encoder: parity with the reference, padding, twins, checkpoints of its weights."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import PARITY, TINY, Golden, load_golden, relative_error, under_our_names
from safetensors.torch import load_file
from torch import Tensor

from emotion2vec import Emotion2vec, Emotion2vecClassifier, Emotion2vecConfig
from emotion2vec.layers import alibi_slopes
from emotion2vec.published.reference import config_from_reference
from emotion2vec.weights import load_weights

VARIANTS = (
    "base_tiny",
    "perlayer_tiny",
    "preln_tiny",
    "pluslarge_like_tiny",
    "v_groupnorm_extractor",
    "v_noalibi_noextra",
    "v_preln_posconv_evenk",
    "v_scalar_alibi_extra1",
)
TOLERANCE = 1e-5


def load_variant(golden: Golden) -> Emotion2vec:
    config = config_from_reference(golden.facts["model_conf"], golden.facts.get("tokens") or ())
    weights = under_our_names(golden.under("state/"), config)
    model = Emotion2vec(config).eval()
    load_weights(model, Emotion2vec.rename_weights(weights), "golden")
    return model


def waveform(name: str) -> Tensor:
    raw = load_file(PARITY / "inference" / "waveforms.safetensors")[name]
    return F.layer_norm(raw, raw.shape).unsqueeze(0)


def record_layers(model: Emotion2vec) -> tuple[dict[str, Tensor], list[Any]]:
    """Fill a dict with every intermediate under the goldens' names while the model runs."""
    seen: dict[str, Tensor] = {}
    hooks = []

    def watch(module: torch.nn.Module, name: str, pick: Callable[[Any], Tensor]) -> None:
        hooks.append(
            module.register_forward_hook(lambda _, __, out: seen.__setitem__(name, pick(out)))
        )

    watch(model.feature_encoder, "local_encoder", lambda out: out.transpose(1, 2))
    watch(model.feature_projection, "project_features", lambda out: out)
    watch(model.context.positional_encoder, "pos_conv", lambda out: out)
    prenet = model.config.prenet_depth
    for i, block in enumerate(model.context.blocks):
        name = f"prenet_block_{i}" if i < prenet else f"block_{i - prenet}"
        watch(block, name, lambda out: out[0])
        if i == prenet - 1:
            watch(block, "prenet_out", lambda out: out[0])
        if i >= prenet:
            watch(block, f"layer_result_{i - prenet}", lambda out: out[1])
    return seen, hooks


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_agrees_with_the_reference(variant: str, attention: str) -> None:
    golden = load_golden(f"inference/{variant}")
    model = load_variant(golden)
    model.set_attention(attention)
    lengths = {name.split("/")[0] for name in golden.tensors if name.endswith("/x")}
    assert lengths
    for length in lengths:
        seen, hooks = record_layers(model)
        with torch.no_grad():
            seen["x"] = model(waveform(length)).last_hidden_state
        for hook in hooks:
            hook.remove()
        expected = golden.under(f"{length}/")
        for name in ("normalized_input", "logits", "probs_all", "utt_feats"):
            expected.pop(name, None)  # compared elsewhere
        assert len(expected) >= 4
        for name, theirs in expected.items():
            assert relative_error(seen[name], theirs) <= TOLERANCE, (length, name)


def test_normalized_input_agrees_with_the_reference() -> None:
    from emotion2vec.audio import normalize

    golden = load_golden("inference/base_tiny")
    raw = load_file(PARITY / "inference" / "waveforms.safetensors")["n5000"]
    ours = torch.from_numpy(normalize(raw.numpy()))
    assert relative_error(ours, golden.tensors["n5000/normalized_input"][0]) <= 1e-6


def test_scores_agree_with_the_reference_and_unused_labels_get_none() -> None:
    golden = load_golden("inference/pluslarge_like_tiny")
    config = config_from_reference(golden.facts["model_conf"], golden.facts["tokens"])
    model = Emotion2vecClassifier(config).eval()
    load_weights(model, under_our_names(golden.under("state/"), config), "golden")
    for length in ("n5000", "n16000", "n48123"):
        with torch.no_grad():
            logits = model(waveform(length))
            pooled = model.encoder(waveform(length)).pooled[0]
        used = [not label.startswith("unuse") for label in config.labels]
        expected = golden.tensors[f"{length}/logits"]
        assert relative_error(logits[:, used], expected[:, used]) <= TOLERANCE
        scores = logits.softmax(dim=-1)
        assert relative_error(scores, golden.tensors[f"{length}/probs_all"]) <= TOLERANCE
        assert not all(used) and scores[0].eq(0).tolist() == [not u for u in used]
        assert relative_error(pooled, golden.tensors[f"{length}/utt_feats"]) <= TOLERANCE


def formula_weight(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """The recipe in base_full_formula.json, under the reference's names."""
    random = np.random.RandomState((zlib.crc32(name.encode()) + seed) & 0xFFFFFFFF)
    z = random.standard_normal(int(np.prod(shape))).reshape(shape)
    if name.endswith("alibi_scale"):
        z = random.uniform(0.3, 1.7, size=int(np.prod(shape)))
        z[3] = -0.4
        z = z.reshape(shape)
    elif name.endswith("extra_tokens"):
        z = 0.5 * z
    elif len(shape) == 1:
        z = 1 + 0.2 * z if name.endswith(".weight") else 0.1 * z
    elif len(shape) == 3:
        z = z * np.sqrt(2 / (shape[1] * shape[2]))
    else:
        z = z * np.sqrt(1 / shape[1])
    return torch.from_numpy(z.astype(np.float32))


@pytest.mark.slow
def test_the_base_model_agrees_with_the_reference() -> None:
    golden = load_golden("inference/base_full_formula")
    config = config_from_reference(golden.facts["model_conf"])
    model = Emotion2vec(config).eval()
    own = model.state_dict()
    names = load_init_names()
    state = {}
    for name, shape in names.items():
        if ".decoder." not in name:
            state[name] = formula_weight(name, shape, golden.facts["seed"])
    weights = Emotion2vec.rename_weights(under_our_names(state, config))
    assert set(weights) == set(own)
    load_weights(model, weights, "formula")
    assert sum(p.numel() for p in model.parameters()) == golden.facts["params"] == 93_171_212
    for length in ("n400", "n5000", "n16000"):
        seen, hooks = record_layers(model)
        with torch.no_grad():
            seen["x"] = model(waveform(length)).last_hidden_state
        for hook in hooks:
            hook.remove()
        for name, theirs in golden.under(f"{length}/").items():
            assert relative_error(seen[name], theirs) <= TOLERANCE, (length, name)


def load_init_names() -> dict[str, tuple[int, ...]]:
    import json

    stats = json.loads((PARITY / "pretrain" / "init_stats.json").read_text())
    return {name: tuple(facts["shape"]) for name, facts in stats["params"].items()}


def test_alibi_slopes_agree_with_the_reference() -> None:
    for name, slopes in load_golden("inference/alibi").under("slopes_h").items():
        assert relative_error(torch.tensor(alibi_slopes(int(name))), slopes) <= 1e-7


# Ways to compute the same.


def test_gradient_checkpointing_changes_nothing_but_memory(tiny_config: Emotion2vecConfig) -> None:
    model = Emotion2vec(tiny_config).train()
    batch = torch.randn(2, 8000)
    gradients = []
    for enable in (False, True):
        model.enable_gradient_checkpointing(enable)
        model.zero_grad()
        torch.manual_seed(3)  # same dropouts
        model(batch).pooled.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 20
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_gradients_of_sdpa_are_those_of_eager(tiny_config: Emotion2vecConfig) -> None:
    model = Emotion2vec(tiny_config).eval()
    batch = torch.randn(2, 8000)
    weights = torch.randn(2, 24, tiny_config.embed_dim)
    scales = []
    for attention in ("sdpa", "eager"):
        model.set_attention(attention)
        model.zero_grad()
        # Weighed at random: the plain square of a normalized output has no gradient.
        (model(batch).last_hidden_state * weights).sum().backward()
        assert model.context.alibi_scale.grad is not None
        scales.append(model.context.alibi_scale.grad.clone())
    assert scales[0].abs().max() > 1e-3
    assert relative_error(*scales) <= 1e-4


def test_autocast_to_bfloat16_stays_near(tiny_config: Emotion2vecConfig) -> None:
    model = Emotion2vec(tiny_config).eval()
    batch = torch.randn(2, 8000)
    with torch.no_grad():
        exact = model(batch).last_hidden_state
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(batch).last_hidden_state.float()
    error = float((rough - exact).norm() / exact.norm())
    assert 0 < error < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("with_mask", [False, True])
def test_compiles_without_graph_breaks(tiny_config: Emotion2vecConfig, with_mask: bool) -> None:
    model = Emotion2vec(tiny_config).eval()
    batch = torch.randn(2, 8000)
    mask = torch.ones(2, 8000, dtype=torch.bool)
    mask[1, 6000:] = False
    arguments = (batch, mask) if with_mask else (batch,)
    # fullgraph raises at the first break; eager is a backend that needs no compiler
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        ours = compiled(*arguments, output_hidden_states=True)
        theirs = model(*arguments, output_hidden_states=True)
    assert relative_error(ours.last_hidden_state, theirs.last_hidden_state) <= TOLERANCE
    assert relative_error(ours.pooled, theirs.pooled) <= TOLERANCE


def test_unknown_attention_lists_the_known(tiny_config: Emotion2vecConfig) -> None:
    with pytest.raises(ValueError, match="'eager', 'sdpa'"):
        Emotion2vec(tiny_config).set_attention("flash")


def test_initial_weights_are_distributed_as_the_references() -> None:
    import json

    stats = json.loads((PARITY / "pretrain" / "init_stats.json").read_text())
    config = Emotion2vecConfig()
    model = Emotion2vec(config)
    assert model.context.utterance_tokens is not None
    assert model.context.utterance_tokens[:, 0].eq(0).all()
    assert abs(float(model.context.utterance_tokens[:, 1:].std()) - 1) < 0.05
    own = model.state_dict()
    checked = 0
    for name, facts in stats["params"].items():
        ours = next(iter(under_our_names({name: torch.zeros(1, 1)}, config)))
        ours = ours.removeprefix("encoder.")
        if ours not in own or name.endswith("extra_tokens"):
            continue
        checked += 1
        value = own[ours].float()
        spread = float(value.std()) if value.numel() > 1 else 0.0
        assert abs(float(value.mean()) - facts["mean"]) < 0.3 * max(facts["std"], 1e-6), name
        assert abs(spread - facts["std"]) <= 0.12 * facts["std"] + 1e-8, name
    assert checked > 100


def test_saved_and_loaded_is_the_same(tmp_path: Path, tiny_config: Emotion2vecConfig) -> None:
    model = Emotion2vec(tiny_config).eval()
    model.save_pretrained(tmp_path / "model")
    loaded = Emotion2vec.from_pretrained(tmp_path / "model")
    assert loaded.config == tiny_config and not loaded.training
    batch = torch.randn(1, 8000)
    with torch.no_grad():
        assert loaded(batch).last_hidden_state.equal(model(batch).last_hidden_state)


def test_an_encoder_reads_a_classifiers_checkpoint(tmp_path: Path) -> None:
    config = Emotion2vecConfig(**TINY, labels=("happy", "sad"))
    classifier = Emotion2vecClassifier(config).eval()
    classifier.save_pretrained(tmp_path)
    encoder = Emotion2vec.from_pretrained(tmp_path)
    batch = torch.randn(1, 8000)
    with torch.no_grad():
        assert encoder(batch).pooled.equal(classifier.encoder(batch).pooled)
    loaded = Emotion2vecClassifier.from_pretrained(tmp_path)
    assert loaded.config.labels == ("happy", "sad")


def test_weights_load_strictly(tmp_path: Path, tiny_config: Emotion2vecConfig) -> None:
    from safetensors.torch import save_file

    Emotion2vec(tiny_config).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    name = "context.blocks.0.norm1.weight"
    for broken, message in (
        ({k: v for k, v in weights.items() if k != name}, f"missing {name}"),
        ({**weights, "stranger": torch.zeros(1)}, "left over stranger"),
        ({**weights, name: torch.zeros(3)}, r"has shape \(3,\) instead of \(48,\)"),
    ):
        save_file(broken, path)
        with pytest.raises(ValueError, match=message):
            Emotion2vec.from_pretrained(tmp_path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="is damaged"):
        Emotion2vec.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="only safetensors are read"):
        Emotion2vec.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="describes a 'bert'"):
        Emotion2vec.from_pretrained(tmp_path)


def test_a_name_that_is_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor a model"):
        Emotion2vec.from_pretrained("nobody/nothing", local_files_only=True, cache_dir=tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_the_accelerator_answers_as_the_cpu(tiny_config: Emotion2vecConfig) -> None:
    model = Emotion2vec(tiny_config).eval()
    batch = torch.randn(2, 8000)
    with torch.no_grad():
        ours = model.cuda()(batch.cuda()).last_hidden_state.cpu()
        assert relative_error(ours, model.cpu()(batch).last_hidden_state) <= 1e-4
