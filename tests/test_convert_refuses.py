"""Conversion is strict, runs nothing, and leaves a whole folder or none."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import CKPT, Call, change, load_golden, pack

from emotion2vec import Emotion2vec, convert_checkpoint
from emotion2vec.cli import main
from emotion2vec.published.pickles import read_pickle
from emotion2vec.published.reference import config_from_reference, parse_conv_spec

NORM = "d2v_model.blocks.0.norm1.weight"
SCALE = "d2v_model.modality_encoders.AUDIO.alibi_scale"
BEYOND = "d2v_model.modality_encoders.AUDIO.decoder.blocks.0.0.bias"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({NORM: None}, r"missing blocks\.0\.norm1\.weight\."),
        ({NORM: torch.ones(3)}, r"norm1\.weight has shape \(3,\) instead of \(64,\)"),
        ({"d2v_model.stranger": torch.ones(1)}, r"no part of the model: d2v_model\.st"),
        ({"proj.weight": torch.ones(5, 64)}, r"proj\.weight has shape \(5, 64\) instead of \(9"),
        ({"proj.weight": None, "proj.bias": None}, r"missing proj\.weight; missing proj\.bias"),
        ({"step": 3}, r"entry step among its weights that is a int"),
        ({SCALE: torch.ones(16)}, r"alibi_scale has shape \(16,\) instead of \(1, 16\)"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit(edit: dict[str, Any], message: str, funasr: Path) -> None:
    def apply(model: dict[str, Any]) -> None:
        model.update(edit)
        for name in [name for name, value in edit.items() if value is None]:
            del model[name]

    change(funasr / "model.pt", apply)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(funasr, funasr / "out")
    assert not (funasr / "out").exists()


def test_what_is_left_out_is_listed_with_its_reason(funasr: Path) -> None:
    extra = {
        "criterion.w": "criterion",
        "d2v_model.modality_encoders.IMAGE.extra_tokens": "other modalities",
        "d2v_model.recon_proj.weight": "pre-training head",
        BEYOND: "decoder, no part of a classifier",
    }
    change(funasr / "model.pt", lambda model: model.update(dict.fromkeys(extra, torch.ones(1))))
    change(funasr / "model.pt", lambda model: model.update({"_ema": {"w": torch.ones(1)}}))
    done = convert_checkpoint(funasr, funasr / "out")
    for name, reason in extra.items():
        assert name in done.dropped[reason]
    assert done.dropped["teacher"] == ("_ema.w", "d2v_model._ema_dummy")
    assert json.loads((funasr / "out/conversion.json").read_text())["dropped"] == {
        reason: list(names) for reason, names in done.dropped.items()
    }


def test_a_students_decoder_and_teacher_are_whole_or_said_not_to_be(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    prefix = "modality_encoders.AUDIO.decoder."
    content = read_pickle(CKPT / "fairseq_tiny.pt")
    model = content["model"]
    bias = model.pop(f"{prefix}proj.bias")
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"missing modality_encoders\.AUDIO\.decoder\.proj\.bias"):
        convert_checkpoint(file, tmp_path / "out")
    model[f"{prefix}proj.bias"], model[f"{prefix}blocks.4.0.bias"] = bias, bias
    torch.save(content, file)
    with pytest.raises(ValueError, match=r"no part of the model: .*decoder\.blocks\.4\.0\.bias"):
        convert_checkpoint(file, tmp_path / "out")
    del model[f"{prefix}blocks.4.0.bias"]
    model["_ema"]["modality_encoders.AUDIO.project_features.2.bias"] = torch.ones(48)
    torch.save(content, file)
    done = convert_checkpoint(file, tmp_path / "out")
    beyond = "teacher, beyond what follows the student here"
    assert done.has_teacher and len(done.dropped[beyond]) == 1
    del model["_ema"]["blocks.0.norm1.bias"]
    torch.save(content, file)
    done = convert_checkpoint(file, tmp_path / "out")
    assert not done.has_teacher and len(done.dropped["teacher, incomplete"]) == 38
    assert not (tmp_path / "out" / "teacher.safetensors").exists()


def test_labels_and_classifier_belong_together(funasr: Path) -> None:
    (funasr / "tokens.txt").rename(funasr / "other.txt")
    with pytest.raises(ValueError, match="a classifier .* but no labels; put tokens.txt"):
        convert_checkpoint(funasr, funasr / "out")
    (funasr / "tokens.txt").write_text("a\nb\na\n")
    with pytest.raises(ValueError, match="has a label twice"):
        convert_checkpoint(funasr, funasr / "out")
    (funasr / "tokens.txt").write_text("\n".join("abcdefgh"))
    with pytest.raises(ValueError, match=r"proj.weight has shape \(9, 64\) instead of \(8, 64\)"):
        convert_checkpoint(funasr, funasr / "out")
    (funasr / "tokens.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="no UTF-8"):
        convert_checkpoint(funasr, funasr / "out")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "Paraformer"}, "is a Paraformer of FunASR; only Emotion2vec"),
        ({"model_conf": None}, "has no model_conf"),
        ({"model_conf": {"depth": 2}}, "no modalities.audio"),
        ({"scope_map": ["d2v_model."]}, "scope_map .* has no pairs"),
    ],
)
def test_settings_of_another_model(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = pack(tmp_path / "in", load_golden("inference/v_noalibi_noextra"), **settings)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("where", "field", "value", "message"),
    [
        ("audio", "learned_alibi", True, "learned_alibi is true"),
        ("audio", "num_alibi_heads", 4, "num_alibi_heads is 4, but num_heads 12"),
        ("audio", "extractor_mode", "batch", "known are .'default', 'layer_norm'"),
        ("audio", "feature_encoder_spec", "__import__('os')", "no list of .channels, kernel"),
        ("audio", "feature_encoder_spec", "[(9, 9, 9)] * 999999999", "no list of .channels"),
        ("audio", "conv_pos_depth", 2.5, "a whole number is needed"),
        ("decoder", "decoder_residual", False, "decoder_residual is false"),
        ("decoder", "projection_layers", 2, "several projection layers"),
        ("decoder", "add_positions_all", True, "the decoder adds positions"),
        ("model", "norm_affine", False, "norms without weights"),
        ("model", "end_of_block_targets", True, "end_of_block_targets is true"),
        ("model", "norm_eps", "tiny", "norm_eps is 'tiny' in the settings; a number is needed"),
        ("model", "embed_dim", 50, "embed_dim is 50, which 12 heads"),
    ],
)
def test_models_that_compute_something_else(
    where: str, field: str, value: Any, message: str
) -> None:
    decoder: dict[str, Any] = {"decoder_dim": 32}
    audio: dict[str, Any] = {"decoder": decoder}
    model: dict[str, Any] = {"embed_dim": 48, "num_heads": 12, "modalities": {"audio": audio}}
    config_from_reference(model)
    {"decoder": decoder, "audio": audio, "model": model}[where][field] = value
    with pytest.raises(ValueError, match=message):
        config_from_reference(model)


def test_conv_specs_as_published() -> None:
    spec = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
    assert parse_conv_spec(spec)["conv_kernels"] == (10, 3, 3, 3, 3, 2, 2)
    assert parse_conv_spec("[(8,2,1),(9,3,2)]*2")["conv_channels"] == (8, 9, 8, 9)


def test_fairseq_files_of_other_kinds(tmp_path: Path) -> None:
    file = tmp_path / "c.pt"
    weights = {"w": torch.ones(1)}
    for content, message in (
        ({"model": weights}, "holds no settings"),
        ({"cfg": None, "model": weights}, "holds no settings"),
        ({"cfg": {"model": {"_name": "wav2vec2"}}, "model": weights}, "a 'wav2vec2' of fairseq"),
        ({"cfg": {"model": {"modalities": {"audio": {}}}}, "model": {}}, "holds no weights"),
        (torch.ones(3), "holds no settings"),
    ):
        torch.save(content, file)
        with pytest.raises(ValueError, match=message):
            convert_checkpoint(file, tmp_path / "out")


def test_places_that_are_no_checkpoint(tmp_path: Path, funasr: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        convert_checkpoint(tmp_path / "none", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="has neither config.yaml"):
        convert_checkpoint(tmp_path, tmp_path / "out")
    (funasr / "model.pt").unlink()
    with pytest.raises(FileNotFoundError, match="has no model.pt; download the weights"):
        convert_checkpoint(funasr, tmp_path / "out")
    (tmp_path / "config.json").write_text('{"model_type": "emotion2vec"}')
    with pytest.raises(ValueError, match="in this package's format already"):
        convert_checkpoint(tmp_path, tmp_path / "out")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a 'bert' of transformers"):
        convert_checkpoint(tmp_path, tmp_path / "out")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        convert_checkpoint(tmp_path, tmp_path / "out")


# Nothing is run.


@pytest.mark.parametrize("place", ["beside", "weights", "_ema", "cfg"])
def test_a_malicious_checkpoint_makes_no_model(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    canary = tmp_path / "canary"
    call = Call(os.system, f"touch {canary}")
    content = read_pickle(CKPT / "fairseq_tiny.pt")
    target = {
        "beside": content, "weights": content["model"], "_ema": content["model"]["_ema"],
        "cfg": content["cfg"]["model"],
    }[place]  # fmt: skip
    target["evil"] = {"deep": [call]}
    torch.save(content, tmp_path / "evil.pt")
    with pytest.raises(SystemExit) as stopped:
        main(["convert", str(tmp_path / "evil.pt"), str(tmp_path / "out")])
    assert stopped.value.code == 1
    captured = capsys.readouterr()
    assert "asks for posix.system" in captured.err and captured.err.count("\n") == 1
    assert captured.out == ""
    assert not canary.exists() and not (tmp_path / "out").exists()


def test_yaml_that_would_run_and_paths_that_lead_out(funasr: Path, tmp_path: Path) -> None:
    config = funasr / "config.yaml"
    plain = config.read_text()
    canary = tmp_path / "canary"
    config.write_text(plain + f"\nx: !!python/object/apply:os.system ['touch {canary}']\n")
    with pytest.raises(ValueError, match="is no plain YAML"):
        convert_checkpoint(funasr, tmp_path / "out")
    assert not canary.exists()
    config.write_text("- a list\n")
    with pytest.raises(ValueError, match="holds no settings by name"):
        convert_checkpoint(funasr, tmp_path / "out")
    config.write_text(plain)
    metas = {"init_param": "../secret.pt", "tokenizer_conf": {"token_list": "/etc/passwd"}}
    (funasr / "configuration.json").write_text(json.dumps({"file_path_metas": metas}))
    torch.save({}, tmp_path / "secret.pt")
    with pytest.raises(FileNotFoundError, match="has no secret.pt"):  # only in the folder itself
        convert_checkpoint(funasr, tmp_path / "out")


# All or nothing.


def test_only_what_is_empty_or_converted_is_replaced(funasr: Path, tmp_path: Path) -> None:
    out = tmp_path / "place" / "out"
    out.mkdir(parents=True)
    convert_checkpoint(funasr, out)
    (out / "left_from_before").touch()
    convert_checkpoint(funasr, out)  # an earlier conversion
    assert not (out / "left_from_before").exists()
    before = sorted((p.name, p.read_bytes()) for p in out.iterdir())
    change(funasr / "model.pt", lambda model: model.pop(NORM))
    with pytest.raises(ValueError, match="missing"):
        convert_checkpoint(funasr, out)
    assert sorted((p.name, p.read_bytes()) for p in out.iterdir()) == before
    (out / "conversion.json").unlink()
    with pytest.raises(FileExistsError, match="neither empty nor has a conversion.json"):
        convert_checkpoint(CKPT / "funasr_tiny", out)
    with pytest.raises(FileExistsError, match="choose another place"):
        convert_checkpoint(CKPT / "funasr_tiny", funasr / "config.yaml")
    assert [p.name for p in out.parent.iterdir()] == ["out"]  # no leftovers beside it


def test_a_failing_disk_leaves_what_was_there(
    funasr: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import emotion2vec.published.convert as module

    convert_checkpoint(funasr, tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_folder", full)
    with pytest.raises(OSError, match=r"cannot write .*out: No space left on device; free space"):
        convert_checkpoint(funasr, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["funasr", "out"]


def test_the_command_prints_one_line(
    funasr: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for form in ("table", "json"):
        with pytest.raises(SystemExit) as stopped:
            main(["convert", str(funasr), str(tmp_path / "out"), "--format", form])
        assert stopped.value.code == 0
        captured = capfd.readouterr()
        assert captured.err == "" and captured.out.count("\n") == 1
    assert json.loads(captured.out)["kind"] == "classifier"
    assert Emotion2vec.from_pretrained(tmp_path / "out").config.embed_dim == 64
    assert yaml.safe_load((funasr / "config.yaml").read_text())["model"] == "Emotion2vec"
