"""Speech encoders of transformers behind our call: tiny ones, of every family."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Call
from hub_server import serve

from emotion2vec.backbones import Backbone, load_backbone
from emotion2vec.speech_encoders import FAMILIES

transformers = pytest.importorskip("transformers")

BLOCKS = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 37,
}
WAVEFORM = {
    **BLOCKS,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
MASKED = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
CONFIGS: dict[str, dict[str, Any]] = {
    "wav2vec2": WAVEFORM,
    "wav2vec2 masked": WAVEFORM | MASKED,
    "hubert": WAVEFORM,
    "hubert masked": WAVEFORM | MASKED,
    "wavlm": WAVEFORM,
    "wavlm masked": WAVEFORM | MASKED,
    "data2vec-audio": WAVEFORM | {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 2},
    "unispeech": WAVEFORM,
    "unispeech-sat": WAVEFORM,
    "wav2vec2-bert": BLOCKS,
    "whisper": {
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 37,
        "decoder_layers": 1,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 37,
        "vocab_size": 60,
        "max_source_positions": 60,  # 1.2 s
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
        "decoder_start_token_id": 1,
    },
}
RNG = np.random.default_rng(0)
CLIPS = [RNG.normal(0.1, 0.2, n).astype(np.float32) for n in (16000, 9000, 24321, 12345)]


def write_config(folder: Path, kind: str, **changes: Any) -> Path:
    """A folder with a config.json and nothing else."""
    config = transformers.AutoConfig.for_model(kind.split()[0], **(CONFIGS[kind] | changes))
    config.save_pretrained(folder)
    return folder


def write_model(folder: Path, kind: str, seed: int = 1, **changes: Any) -> Path:
    """A folder as `save_pretrained` makes it, weights and all."""
    torch.manual_seed(seed)
    config = transformers.AutoConfig.from_pretrained(write_config(folder, kind, **changes))
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    if kind == "whisper":
        extractor = transformers.WhisperFeatureExtractor()
    extractor.save_pretrained(folder)
    return folder


def load(name: str, folder: Path, **options: Any) -> Backbone:
    return load_backbone(f"{name}:{folder}", device="cpu", **options)


def test_every_family_is_tried() -> None:
    assert {kind.split()[0] for kind in CONFIGS} == set(FAMILIES)


@pytest.mark.parametrize("kind", CONFIGS)
def test_random_ones_of_every_family(kind: str, tmp_path: Path) -> None:
    folder = write_config(tmp_path, kind)
    backbone = load("hf-random", folder, layer="all")
    assert (backbone.dim, backbone.kind, backbone.num_tokens) == (32, "model", 0)
    together = backbone.encode(CLIPS)
    output = load("hf-random", folder)
    for clip, encoded in zip(CLIPS, together, strict=True):
        (alone,) = backbone.encode([clip])
        assert encoded.frames.shape == alone.frames.shape == (len(alone.frames), 3, 32)
        assert np.abs(encoded.frames - alone.frames).max() <= 1e-5
        assert abs(len(alone.frames) - len(clip) / 320) <= 2  # one every 20 ms
        assert np.isfinite(alone.frames).all() and alone.frames.std(axis=0).min() > 0
        (last,) = output.encode([clip])
        assert last.frames.shape == (len(alone.frames), 32) and last.tokens.shape == (0, 32)
    for layer in (0, 1, 2):
        (one,) = load("hf-random", folder, layer=layer).encode(CLIPS[:1])
        assert np.abs(one.frames - together[0].frames[:, layer]).max() <= 1e-5
    (mean,) = load("hf-random", folder, layer="mean").encode(CLIPS[:1])
    assert np.abs(mean.frames - together[0].frames.mean(axis=1)).max() <= 1e-5


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm masked", "data2vec-audio", "whisper"])
def test_frames_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, kind)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    clip = CLIPS[0]
    if kind == "whisper":
        made = extractor(clip, sampling_rate=16000, max_length=19200, return_tensors="pt")
        output = model.encoder(made.input_features, output_hidden_states=True)
    else:
        made = extractor(clip, sampling_rate=16000, return_tensors="pt")
        output = model(made.input_values, output_hidden_states=True)
    for layer, expected in ((None, output.last_hidden_state), (1, output.hidden_states[1])):
        (encoded,) = load("hf", folder, layer=layer).encode([clip])
        expected = expected[0, : 50 if kind == "whisper" else None].detach().numpy()
        assert encoded.frames.shape == expected.shape
        assert np.abs(encoded.frames - expected).max() <= 1e-5


def test_sound_is_normalized_as_the_model_says(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "wav2vec2 masked")
    backbone = load("hf", folder)
    loud, quiet = backbone.encode([CLIPS[0]])[0].frames, backbone.encode([CLIPS[0] / 9])[0].frames
    assert np.abs(loud - quiet).max() <= 1e-3
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_normalize": False}))
    plain = load("hf", folder)
    assert plain.fingerprint != backbone.fingerprint
    assert np.abs(plain.encode([CLIPS[0]])[0].frames - loud).max() > 1e-3


@pytest.mark.parametrize("kind", ["wav2vec2 masked", "wav2vec2", "wav2vec2-bert", "whisper"])
def test_long_recordings_go_in_parts_on_the_same_grid(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load("hf-random", write_config(tmp_path, kind))
    clip = np.concatenate(CLIPS)
    whole = backbone.encode([clip])[0].frames
    monkeypatch.setattr("emotion2vec.speech_encoders.LONGEST_FRAMES", 40)
    short, parts = (encoded.frames for encoded in backbone.encode([CLIPS[1], clip]))
    assert parts.shape == whole.shape and len(short) < 40
    assert np.abs(short - backbone.encode([CLIPS[1]])[0].frames).max() <= 1e-5


def test_whisper_keeps_the_frames_of_real_sound(tmp_path: Path) -> None:
    backbone = load("hf-random", write_config(tmp_path, "whisper"))
    lengths = [400, 640, 641, 19200, 19201, 40000]
    found = backbone.encode([np.resize(CLIPS[0], n) for n in lengths])
    assert [len(encoded.frames) for encoded in found] == [2, 2, 3, 60, 61, 125]
    (longer,) = backbone.encode([np.resize(CLIPS[0], 40000)])
    (first,) = backbone.encode([np.resize(CLIPS[0], 19200)])
    assert np.abs(longer.frames[:60] - first.frames).max() <= 1e-5


def test_too_short_a_clip_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="under 400 samples"):
        load("hf-random", write_config(tmp_path / "a", "hubert")).encode([CLIPS[0][:399]])
    bert = load("hf-random", write_config(tmp_path / "b", "wav2vec2-bert"))
    with pytest.raises(RuntimeError, match="400 samples, too few"), np.errstate(all="ignore"):
        bert.encode([CLIPS[0][:400]])


def test_fingerprints_follow_weights_and_layers_not_places(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "a", "hubert")
    found = {load("hf", folder, layer=layer).fingerprint for layer in (None, 1, 2, "mean", "all")}
    found.add(load("hf", write_model(tmp_path / "b", "hubert", seed=2)).fingerprint)
    random = load("hf-random", folder)
    assert len(found | {random.fingerprint}) == 7
    moved = folder.rename(tmp_path / "moved")
    again = load("hf", moved)
    assert again.fingerprint in found
    assert again.name == f"hf:{moved}" and random.name == f"hf-random:{folder}"
    assert load("hf-random", moved).fingerprint == random.fingerprint  # always the same weights


def test_old_checkpoints_are_read_without_running_them(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "wavlm")
    (expected,) = load("hf", folder).encode(CLIPS[:1])
    weights = transformers.AutoModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save({f"wavlm.{k}": v for k, v in weights.items()}, folder / "pytorch_model.bin")
    (found,) = load("hf", folder).encode(CLIPS[:1])
    assert np.array_equal(found.frames, expected.frames)
    mark = tmp_path / "ran"
    torch.save({"x": Call(Path.touch, mark)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="asks for"):
        load("hf", folder)
    assert not mark.exists()


def test_what_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="hf:no/such is neither a folder nor a name on the"):
        load_backbone("hf:no/such")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty has no config\.json that transformers can"):
        load("hf", tmp_path / "empty")
    transformers.AutoConfig.for_model("bert").save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="of the kind 'bert'; .* are wav2vec2, hubert, wavlm"):
        load("hf-random", tmp_path / "bert")
    with pytest.raises(FileNotFoundError, match=r"bare/pytorch_model\.bin does not exist"):
        load("hf", write_config(tmp_path / "bare", "hubert"))
    folder = write_model(tmp_path / "model", "hubert")
    with pytest.raises(ValueError, match="has no layer 3; choose 0"):
        load("hf", folder, layer=3)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no preprocessor_config\.json"):
        load("hf", folder)
    write_model(folder, "hubert")
    write_config(folder, "hubert", num_hidden_layers=3)
    with pytest.raises(ValueError, match=r"lacks 16 weights .* such as encoder\.layers\.2"):
        load("hf", folder)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'emotion2vec\[hf\]'"):
        load("hf", folder)


def test_a_family_by_its_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def small(kind: str) -> Any:
        asked.append(kind)
        return transformers.CONFIG_MAPPING[kind](**CONFIGS[kind])

    monkeypatch.setattr(transformers.AutoConfig, "for_model", small)
    assert load_backbone("hf-random:wavlm", device="cpu").dim == 32
    assert asked == ["wavlm"]


HUB_SCRIPT = """
import os
import subprocess
import sys
from emotion2vec.backbones import load_backbone
print(*(load_backbone(name, device="cpu").fingerprint for name in sys.argv[1:]))
"""


def test_from_a_hub(tmp_path: Path) -> None:
    new = write_model(tmp_path / "served/owner/new/main", "hubert")
    (new / "tf_model.h5").write_bytes(bytes(1000))
    old = write_model(tmp_path / "served/owner/old/main", "wavlm", seed=2)
    torch.save(transformers.AutoModel.from_pretrained(old).state_dict(), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    with serve(tmp_path / "served") as hub:
        # In a process of its own, because the client reads its environment once.
        home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url}
        done = subprocess.run(
            [sys.executable, "-c", HUB_SCRIPT, "hf:owner/new", "hf:owner/old"],
            env=os.environ | home,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert "model.safetensors" in hub.downloads() and "tf_model.h5" not in hub.downloads()
    assert done.stdout.split() == [load("hf", folder).fingerprint for folder in (new, old)]
