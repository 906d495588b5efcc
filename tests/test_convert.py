"""Published checkpoints become models: the golden ones, every kind, strictly and atomically."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
import torch
from conftest import CKPT, PARITY, change, load_golden, pack, relative_error, save
from safetensors.torch import load_file
from torch import Tensor

from emotion2vec import (
    Emotion2vec,
    Emotion2vecClassifier,
    Emotion2vecConfig,
    Emotion2vecStudent,
    convert_checkpoint,
)
from emotion2vec.audio import normalize
from emotion2vec.pretraining.teacher import Teacher
from emotion2vec.published.pickles import read_pickle
from emotion2vec.published.reference import config_from_reference, reference_table

VARIANTS = (
    "base_tiny", "perlayer_tiny", "preln_tiny", "pluslarge_like_tiny", "v_groupnorm_extractor",
    "v_noalibi_noextra", "v_preln_posconv_evenk", "v_scalar_alibi_extra1",
)  # fmt: skip
ATOL = 2e-5


def waveform(name: str) -> Tensor:
    raw = load_file(PARITY / "inference" / "waveforms.safetensors")[name]
    return torch.from_numpy(normalize(raw.numpy())).unsqueeze(0)


# The names.


@pytest.mark.parametrize("variant", [*VARIANTS, "base_full_formula"])
def test_the_table_is_our_state_and_the_references(variant: str) -> None:
    golden = load_golden(f"inference/{variant}")
    config = config_from_reference(golden.facts["model_conf"], golden.facts.get("tokens") or ("a",))
    table = reference_table(config)
    with torch.device("meta"):
        own = Emotion2vecStudent(config).state_dict() | Emotion2vecClassifier(config).state_dict()
    assert {name: origin.shape for name, origin in table.items()} == {
        name: tuple(value.shape) for name, value in own.items()
    }
    names = [name for origin in table.values() for name in origin.names]
    assert len(set(names)) == len(names)
    heads = () if golden.facts.get("tokens") else ("proj.",)
    encoder = {n for n in names if ".decoder." not in n and not n.startswith(heads)}
    state = golden.under("state/")
    assert set(state) == (encoder if state else set())


@pytest.mark.parametrize(
    ("total", "sizes"),
    [
        (93_790_988, {}),
        (164_048_921 - 9 * 1025, {"embed_dim": 1024, "num_heads": 16, "decoder_dim": 768}),
        (315_203_609 - 9 * 1025, {"embed_dim": 1024, "num_heads": 16, "decoder_dim": 768,
                                  "prenet_depth": 8, "depth": 16}),
    ],
)  # fmt: skip
def test_sizes_of_base_plus_large_and_data2vec2_large(total: int, sizes: dict[str, int]) -> None:
    # golden/baselines/param_counts.json; its large models have a 9-way classifier, 1025 a row
    table = reference_table(Emotion2vecConfig(**sizes))
    assert sum(torch.Size(origin.shape).numel() for origin in table.values()) == total


# The goldens.


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_golden_state_converts_from_a_funasr_folder(variant: str, tmp_path: Path) -> None:
    golden = load_golden(f"inference/{variant}")
    done = convert_checkpoint(pack(tmp_path / "in", golden), tmp_path / "out")
    assert done.kind == ("classifier" if golden.facts.get("tokens") else "encoder")
    assert done.dropped == {}
    model = Emotion2vec.from_pretrained(tmp_path / "out")
    lengths = [n.split("/")[0] for n in golden.tensors if n.endswith("/x") and n[0] == "n"]
    assert lengths
    for length in lengths:
        with torch.no_grad():
            x = model(waveform(length)).last_hidden_state
        torch.testing.assert_close(x, golden.tensors[f"{length}/x"], atol=ATOL, rtol=0)


def test_the_folder_that_funasr_reads(tmp_path: Path) -> None:
    done = convert_checkpoint(CKPT / "funasr_tiny", tmp_path / "out")
    facts = json.loads((CKPT / "funasr_tiny_expected.json").read_text())
    expected = load_file(CKPT / "funasr_tiny_expected.safetensors")
    assert done.kind == "classifier" and len(done.labels) == 9
    assert done.dropped == {"teacher": ("d2v_model._ema_dummy",)}
    model = Emotion2vecClassifier.from_pretrained(tmp_path / "out")
    used = [i for i, label in enumerate(done.labels) if not label.startswith("unuse")]
    assert [done.labels[i] for i in used] == facts["labels"]
    for length in ("n16000", "n48123"):
        with torch.no_grad():
            scores = model(waveform(length)).softmax(dim=-1)[0, used]
            output = model.encoder(waveform(length))
        assert scores.tolist() == pytest.approx(facts["scores"][length], abs=1e-6)
        for ours, name in ((output.last_hidden_state, "frame_feats"), (output.pooled, "utt_feats")):
            theirs = expected[f"{length}/{name}"]
            torch.testing.assert_close(ours[0], theirs, atol=ATOL, rtol=0)


def test_the_file_that_fairseqs_trainer_wrote(tmp_path: Path) -> None:
    done = convert_checkpoint(CKPT / "fairseq_tiny.pt", tmp_path / "out")
    assert (done.kind, done.has_teacher, done.num_parameters) == ("student", True, 93_580)
    assert "last_optimizer_state" in done.dropped["state of the training"]
    expected = load_file(CKPT / "fairseq_tiny_expected.safetensors")
    clip = torch.from_numpy(normalize(expected["wav"].numpy())).unsqueeze(0)
    with torch.no_grad():
        x = Emotion2vec.from_pretrained(tmp_path / "out")(clip).last_hidden_state
    torch.testing.assert_close(x, expected["x"], atol=ATOL, rtol=0)
    student = Emotion2vecStudent.from_pretrained(tmp_path / "out")
    theirs = read_pickle(CKPT / "fairseq_tiny.pt")["model"]
    assert student.decoder.projection.weight.equal(
        theirs["modality_encoders.AUDIO.decoder.proj.weight"]
    )
    facts = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert facts["file"] == "fairseq_tiny.pt" and len(facts["sha256"]) == 64
    modes = {file.stat().st_mode for file in (tmp_path / "out").iterdir()}
    assert len(modes) == 1  # whoever may read the config may read the weights


def test_pretraining_starts_where_a_data2vec2_checkpoint_stopped(tmp_path: Path) -> None:
    # A golden step as fairseq would have saved it: the student predicts, the teacher aims alike.
    golden = load_golden("pretrain/chunk")
    state = golden.under("student/") | {"_ema": golden.under("ema/")}
    cfg = {"model": golden.facts["model_conf"], "task": {"normalize": True}}
    torch.save({"args": None, "cfg": cfg, "model": state, "criterion": None}, tmp_path / "d2v2.pt")
    done = convert_checkpoint(tmp_path / "d2v2.pt", tmp_path / "out")
    assert done.kind == "student" and done.has_teacher
    student = Emotion2vecStudent.from_pretrained(tmp_path / "out")
    teacher = Teacher(student.encoder.context, top_k=2)
    teacher.context.load_state_dict(load_file(tmp_path / "out" / "teacher.safetensors"))
    visible = golden.tensors["clone2/visible_idx"]
    with torch.no_grad():
        output = student(golden.tensors["source_A"], visible.reshape(-1, 2, visible.shape[1]))
        targets = teacher(output.features)
    assert relative_error(output.prediction, golden.tensors["clone2/decoder_out_all"]) <= 1e-5
    assert relative_error(targets.frames, golden.tensors["clone2/targets"]) <= 1e-5


def test_settings_as_objects_of_foreign_classes(tmp_path: Path) -> None:
    content = read_pickle(CKPT / "fairseq_tiny.pt")
    model = content["cfg"]["model"]
    audio = argparse.Namespace(**model["modalities"]["audio"])
    model["modalities"] = argparse.Namespace(audio=audio, _name=None)
    audio.num_alibi_heads = "${model.num_heads}"  # as omegaconf keeps what stands elsewhere
    model["norm_eps"] = "1e-05"  # as PyYAML reads it
    content["cfg"] = argparse.Namespace(**content["cfg"])
    torch.save(content, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    convert_checkpoint(CKPT / "fairseq_tiny.pt", tmp_path / "plain")
    convert_checkpoint(tmp_path / "c.pt", tmp_path / "foreign")
    for name in ("config.json", "model.safetensors", "teacher.safetensors"):
        ours, theirs = (tmp_path / folder / name for folder in ("plain", "foreign"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_transformers_reads_what_was_converted(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification

    import emotion2vec.hf  # noqa: F401

    convert_checkpoint(CKPT / "funasr_tiny", tmp_path / "out")
    clip = waveform("n16000")
    with torch.no_grad():
        native = Emotion2vecClassifier.from_pretrained(tmp_path / "out")
        wrapped = AutoModelForAudioClassification.from_pretrained(tmp_path / "out")
        assert wrapped(clip).logits.equal(native(clip))
        encoder = AutoModel.from_pretrained(tmp_path / "out")
        assert encoder(clip).pooler_output.equal(native.encoder(clip).pooled)
        convert_checkpoint(CKPT / "fairseq_tiny.pt", tmp_path / "student")
        student = Emotion2vec.from_pretrained(tmp_path / "student")
        encoder = AutoModel.from_pretrained(tmp_path / "student")
        assert encoder(clip).pooler_output.equal(student(clip).pooled)
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "out").do_normalize is True


# Where weights may stand, and in which type.


@pytest.mark.parametrize("wrap", ["state_dict", "model_state_dict", "model", None])
def test_weights_are_found_where_funasr_looks(wrap: str | None, funasr: Path) -> None:
    weights = read_pickle(funasr / "model.pt")["model"]
    save({wrap: weights, "epoch": 3} if wrap else weights, funasr / "model.pt")
    done = convert_checkpoint(funasr, funasr / "out")
    assert done.dropped.get("state of the training", ()) == (("epoch",) if wrap else ())
    (funasr / "configuration.json").unlink()  # then the usual names count
    (funasr / "model.pt").rename(funasr / "emotion2vec_base.pt")
    assert convert_checkpoint(funasr, funasr / "out").labels == done.labels
    by_file = convert_checkpoint(funasr / "emotion2vec_base.pt", funasr / "out2")
    assert by_file.num_parameters == done.num_parameters


def test_the_last_prefix_that_fits_counts_and_the_other_is_listed(funasr: Path) -> None:
    twin = torch.zeros(9)
    change(funasr / "model.pt", lambda model: model.update({"module.proj.bias": twin}))
    done = convert_checkpoint(funasr, funasr / "out")
    assert done.dropped["the same weight under another prefix"] == ("proj.bias",)
    assert load_file(funasr / "out/model.safetensors")["classifier.bias"].equal(twin)


def test_half_and_double_are_stored_as_float32(funasr: Path, tmp_path: Path) -> None:
    def halve(model: dict[str, Tensor]) -> None:
        for i, name in enumerate(model):
            model[name] = model[name].half() if i % 2 else model[name].double()

    change(funasr / "model.pt", halve)
    convert_checkpoint(funasr, tmp_path / "out")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_an_old_alibi_scale_of_four_axes(tmp_path: Path) -> None:
    content = read_pickle(CKPT / "fairseq_tiny.pt")
    name = "modality_encoders.AUDIO.alibi_scale"
    scale = content["model"][name]
    content["model"][name] = scale[0]
    torch.save(content, tmp_path / "old.pt")
    convert_checkpoint(tmp_path / "old.pt", tmp_path / "out")
    ours = load_file(tmp_path / "out/model.safetensors")["encoder.context.alibi_scale"]
    assert ours.equal(scale.view(1, 12))


def test_normalization_follows_the_checkpoint(tmp_path: Path) -> None:
    golden = load_golden("inference/v_noalibi_noextra")
    golden.facts["model_conf"]["normalize"] = False
    convert_checkpoint(pack(tmp_path / "in", golden), tmp_path / "out")
    assert Emotion2vec.from_pretrained(tmp_path / "out").config.normalize_waveform is False
    content = read_pickle(CKPT / "fairseq_tiny.pt")
    content["cfg"]["task"]["normalize"] = False
    torch.save(content, tmp_path / "c.pt")
    convert_checkpoint(tmp_path / "c.pt", tmp_path / "out")
    preprocessor = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert preprocessor["do_normalize"] is False


def test_a_config_of_ours_says_what_the_checkpoint_is(tmp_path: Path) -> None:
    convert_checkpoint(CKPT / "funasr_tiny", tmp_path / "out")
    config = Emotion2vecConfig.from_dict(json.loads((tmp_path / "out/config.json").read_text()))
    assert (config.embed_dim, config.num_heads, config.prenet_depth, config.depth) == (64, 16, 1, 1)
    assert config.labels[:2] == ("生气/angry", "unuse_0")
