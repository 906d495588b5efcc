"""The transformers classes answer bit for bit as the native ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import TINY, write_tone

from emotion2vec import Emotion2vec, Emotion2vecClassifier, Emotion2vecConfig
from emotion2vec.audio import load_audio, normalize, pad_clips

pytest.importorskip("transformers")

from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForAudioClassification,
    pipeline,
)

from emotion2vec.hf import (
    Emotion2vecFeatureExtractor,
    Emotion2vecForSequenceClassification,
    Emotion2vecHFConfig,
    Emotion2vecModel,
)

LABELS = ("angry", "happy", "sad")


def trained(model: torch.nn.Module) -> torch.nn.Module:
    """The model with weights that no initialization would draw, so that one would show."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    return model.eval()


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    return [write_tone(tmp_path / f"{i}.wav", 0.4 + 0.3 * i, pitch=200 + 50 * i) for i in range(3)]


@pytest.fixture
def batch(clips: list[Path]) -> tuple[torch.Tensor, torch.Tensor]:
    values, mask = pad_clips([normalize(load_audio(clip)) for clip in clips])
    return torch.from_numpy(values), torch.from_numpy(mask)


@pytest.fixture
def native(tmp_path: Path) -> Emotion2vec:
    model = trained(Emotion2vec(Emotion2vecConfig(**TINY)))
    assert isinstance(model, Emotion2vec)
    model.save_pretrained(tmp_path / "native")
    return model


@pytest.fixture
def classifier(tmp_path: Path) -> Emotion2vecClassifier:
    model = trained(Emotion2vecClassifier(Emotion2vecConfig(**TINY, labels=LABELS)))
    assert isinstance(model, Emotion2vecClassifier)
    model.save_pretrained(tmp_path / "classifier")
    return model


def test_auto_model_is_bit_equal(native, tmp_path, batch) -> None:
    wrapped = AutoModel.from_pretrained(tmp_path / "native")
    assert isinstance(wrapped, Emotion2vecModel) and not wrapped.training
    for name, value in native.state_dict().items():
        assert wrapped.model.state_dict()[name].equal(value), name
    with torch.no_grad():
        ours = wrapped(*batch, output_hidden_states=True)
        theirs = native(*batch, output_hidden_states=True)
    assert ours.last_hidden_state.equal(theirs.last_hidden_state)
    assert ours.pooler_output.equal(theirs.pooled)
    assert ours.utterance_tokens.equal(theirs.utterance_tokens)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 4
    assert all(a.equal(b) for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True))


def test_saved_by_transformers_and_read_by_both(native, tmp_path, batch) -> None:
    AutoModel.from_pretrained(tmp_path / "native").save_pretrained(tmp_path / "saved")
    again = AutoModel.from_pretrained(tmp_path / "saved")
    back = Emotion2vec.from_pretrained(tmp_path / "saved")
    assert back.config == native.config
    with torch.no_grad():
        expected = native(*batch).last_hidden_state
        assert again(*batch).last_hidden_state.equal(expected)
        assert back(*batch).last_hidden_state.equal(expected)


def test_auto_classifier_is_bit_equal(classifier, tmp_path, batch) -> None:
    wrapped = AutoModelForAudioClassification.from_pretrained(tmp_path / "classifier")
    assert isinstance(wrapped, Emotion2vecForSequenceClassification)
    assert wrapped.config.id2label == dict(enumerate(LABELS))
    with torch.no_grad():
        expected = classifier(*batch)
        assert wrapped(*batch).logits.equal(expected)
        wrapped.save_pretrained(tmp_path / "saved")
        assert Emotion2vecClassifier.from_pretrained(tmp_path / "saved")(*batch).equal(expected)
        encoder = Emotion2vec.from_pretrained(tmp_path / "saved")
        assert encoder(*batch).pooled.equal(classifier.encoder(*batch).pooled)


def test_an_encoder_grows_a_new_head_and_trains(native, tmp_path, batch) -> None:
    wrapped = AutoModelForAudioClassification.from_pretrained(tmp_path / "native", num_labels=5)
    for name, value in native.state_dict().items():
        assert wrapped.model.state_dict()[name].equal(value), name
    wrapped.train()
    wrapped.gradient_checkpointing_enable()
    assert wrapped.model.context.gradient_checkpointing is True
    output = wrapped(*batch, labels=torch.tensor([0, 1, 4]))
    output.loss.backward()
    assert output.logits.shape == (3, 5)
    assert all(p.grad is not None for n, p in wrapped.named_parameters() if "tokens" not in n)


def test_fresh_weights_are_distributed_as_native_ones() -> None:
    wrapped = Emotion2vecModel(Emotion2vecHFConfig(**TINY)).model.state_dict()
    for name, value in Emotion2vec(Emotion2vecConfig(**TINY)).state_dict().items():
        if value.numel() > 500:
            assert wrapped[name].std() == pytest.approx(float(value.std()), rel=0.2), name
    assert wrapped["context.utterance_tokens"][:, 0].eq(0).all()


def test_auto_config_and_feature_extractor(native, tmp_path, clips, batch) -> None:
    config = AutoConfig.from_pretrained(tmp_path / "native")
    assert isinstance(config, Emotion2vecHFConfig) and config.to_native() == native.config
    prepare = AutoFeatureExtractor.from_pretrained(tmp_path / "native")
    assert isinstance(prepare, Emotion2vecFeatureExtractor)
    ready = prepare([load_audio(c) for c in clips], sampling_rate=16000, return_tensors="pt")
    assert ready["input_values"].equal(batch[0]) and ready["attention_mask"].equal(batch[1])
    with pytest.raises(ValueError, match="8000 Hz, the model needs 16000 Hz"):
        prepare(load_audio(clips[0]), sampling_rate=8000)
    with pytest.raises(ValueError, match="clip 0 is 0.006 s long"):
        prepare(load_audio(clips[0])[:100])


def test_the_pipeline_gives_the_native_scores(classifier, tmp_path, clips) -> None:
    answer = pipeline("audio-classification", model=str(tmp_path / "classifier"))
    found = {row["label"]: row["score"] for row in answer(load_audio(clips[0]), top_k=3)}
    waveform = torch.from_numpy(normalize(load_audio(clips[0]))).unsqueeze(0)
    with torch.no_grad():
        scores = classifier(waveform).softmax(dim=-1)[0]
    for label, score in zip(LABELS, scores.tolist(), strict=True):
        assert found[label] == pytest.approx(score, abs=1e-6)


def test_attention_follows_transformers_choice(native, tmp_path) -> None:
    for choice in ("eager", "sdpa"):
        wrapped = AutoModel.from_pretrained(tmp_path / "native", attn_implementation=choice)
        assert {b.attention.implementation for b in wrapped.model.context.blocks} == {choice}
