"""Runs that start from a checkpoint: `--init`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import CKPT, call, load_golden, relative_error
from safetensors.torch import load_file
from test_data2vec1 import TINY as DATA2VEC1
from test_data2vec1 import fairseq_file
from test_pretraining_loop import CONFIG, assert_same, run, weights
from test_resume import StopAfter

from emotion2vec import Emotion2vecConfig, Emotion2vecStudent, convert_checkpoint
from emotion2vec.pretraining.checkpoint import TrainState
from emotion2vec.pretraining.config import PretrainConfig, read_config, write_config
from emotion2vec.pretraining.data import Batch
from emotion2vec.pretraining.loop import new_state
from emotion2vec.pretraining.start import start_from
from emotion2vec.pretraining.step import objective
from emotion2vec.published.checkpoints import open_checkpoint
from emotion2vec.settings import parse_override
from emotion2vec.weights import read_weights

FAIRSEQ = CKPT / "fairseq_tiny.pt"
TOKENS = "encoder.context.utterance_tokens"


def config_of(checkpoint: Path, **changes: Any) -> PretrainConfig:
    """Settings of a short run on a checkpoint's architecture."""
    model = replace(open_checkpoint(checkpoint).config, labels=(), **changes)
    loss = "chunk" if model.num_utterance_tokens else "global"
    return replace(CONFIG, model=model, utterance_loss=loss, top_k=1, max_updates=3)


def teacher_of(state: TrainState) -> dict[str, torch.Tensor]:
    return state.teacher.context.state_dict()


def student_context(state: TrainState) -> dict[str, torch.Tensor]:
    return state.student.encoder.context.state_dict()


def test_student_and_teacher_are_the_checkpoint_s(tmp_path: Path) -> None:
    convert_checkpoint(FAIRSEQ, tmp_path / "out")
    for source in (FAIRSEQ, tmp_path / "out"):  # converted in memory, or before
        state = new_state(config_of(FAIRSEQ))
        start = start_from(state, str(source))
        assert_same(state.student.state_dict(), read_weights(tmp_path / "out"))
        assert_same(teacher_of(state), load_file(tmp_path / "out" / "teacher.safetensors"))
        assert not teacher_of(state)["blocks.0.mlp.fc1.weight"].equal(
            student_context(state)["blocks.0.mlp.fc1.weight"]
        )
        assert start.drawn == ()
        assert start.teacher == "the checkpoint's moving average"
    state = new_state(config_of(FAIRSEQ))
    assert start_from(state, str(FAIRSEQ)).left_out == ("state of the training (6)",)
    assert start_from(state, str(tmp_path / "out")).left_out == ()


def test_the_first_step_is_the_golden_one(tmp_path: Path) -> None:
    golden = load_golden("pretrain/chunk")
    conf = golden.facts["model_conf"]
    content = {
        "cfg": {"model": conf, "task": {"normalize": True}},
        "model": golden.under("student/") | {"_ema": golden.under("ema/")},
    }
    torch.save(content, tmp_path / "d2v2.pt")
    model = open_checkpoint(tmp_path / "d2v2.pt").config
    config = PretrainConfig(model, top_k=2, mask_noise_std=0.0, block_drop=0.0)
    state = new_state(config)
    start_from(state, str(tmp_path / "d2v2.pt"))
    visible = golden.tensors["clone2/visible_idx"]
    waveform = golden.tensors["source_A"]
    batch = Batch(waveform, visible.reshape(len(waveform), 2, -1), ())
    facts = golden.facts["scalars"]["clone2"]
    with torch.no_grad():
        parts = objective(state.student, state.teacher, batch, config)
        targets = state.teacher(state.student.encoder.features(waveform)[0])
    assert relative_error(targets.frames, golden.tensors["clone2/targets"]) <= 1e-5
    assert float(parts.frame) == pytest.approx(facts["d2v_sum"], rel=2e-6)


def test_another_number_of_tokens_is_drawn_from_the_seed() -> None:
    config = config_of(FAIRSEQ, num_utterance_tokens=3)
    state, cold = new_state(config), new_state(config)
    start = start_from(state, str(FAIRSEQ))
    assert start.drawn == ("3 utterance tokens",)
    assert start.left_out[-1] == "its 10 utterance tokens"
    tokens = state.student.state_dict()[TOKENS]
    assert tokens[0, 0].eq(0).all() and tokens[0, 1:].std() == pytest.approx(1, abs=0.2)
    assert tokens.equal(cold.student.state_dict()[TOKENS])
    assert teacher_of(state)["utterance_tokens"].equal(tokens)
    assert "drawn anew: 3 utterance tokens; left out: " in str(start)


def test_a_model_without_tokens_takes_none() -> None:
    state = new_state(config_of(FAIRSEQ, num_utterance_tokens=0))
    assert start_from(state, str(FAIRSEQ)).drawn == ()
    assert TOKENS not in state.student.state_dict()


def transformers_folder(path: Path) -> Path:
    transformers.Data2VecAudioModel(transformers.Data2VecAudioConfig(**DATA2VEC1)).save_pretrained(
        path
    )
    return path


def fairseq_data2vec1(path: Path) -> Path:
    model = transformers.Data2VecAudioModel(
        transformers.Data2VecAudioConfig(**DATA2VEC1, mask_time_prob=0.05)
    )
    return fairseq_file(path, model.state_dict())


@pytest.mark.parametrize("make", [transformers_folder, fairseq_data2vec1])
def test_data2vec_1_is_an_encoder_to_start_from(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = make(tmp_path / "data2vec1")
    config = config_of(source, num_utterance_tokens=4)
    state, cold = new_state(config), new_state(config)
    start = start_from(state, str(source))
    assert start.drawn == ("the frame decoder", "4 utterance tokens")
    assert start.teacher == "a copy of the student"
    assert_same(teacher_of(state), student_context(state))
    convert_checkpoint(source, tmp_path / "out")
    drawn = cold.student.state_dict()
    for name, value in state.student.state_dict().items():
        if name == TOKENS or name.startswith("decoder."):
            assert value.equal(drawn[name]), name
        else:
            assert value.equal(read_weights(tmp_path / "out")[name.removeprefix("encoder.")]), name


def test_a_classifier_lends_its_encoder() -> None:
    source = CKPT / "funasr_tiny"
    start = start_from(new_state(config_of(source)), str(source))
    assert "its classifier" in start.left_out
    assert start.drawn == ("the frame decoder",)


def test_a_run_of_ours_is_a_checkpoint_too(tones: Path, tmp_path: Path) -> None:
    run(CONFIG, tones, tmp_path / "run")
    state = new_state(CONFIG)
    start = start_from(state, str(tmp_path / "run" / "last.safetensors"))
    held = weights(tmp_path / "run")
    own = {f"student.{k}": v for k, v in state.student.state_dict().items()}
    own |= {f"teacher.context.{k}": v for k, v in teacher_of(state).items()}
    assert_same(own, {k: v for k, v in held.items() if not k.startswith("optimizer.")})
    assert start.drawn == ()
    start = start_from(new_state(CONFIG), str(tmp_path / "run" / "final"))
    assert start.drawn == ("the frame decoder",)
    with pytest.raises(ValueError, match="is no state of a run; name the folder"):
        start_from(state, str(tmp_path / "run" / "final" / "model.safetensors"))


def test_heads_for_pseudo_labels_are_drawn() -> None:
    config = replace(config_of(FAIRSEQ), clusters=(5, 7), utterance_loss="none")
    state = new_state(config)
    assert start_from(state, str(FAIRSEQ)).drawn == ("the frame decoder's last layer",)
    assert state.student.decoder.projection.bias.shape == (12,)


def test_another_architecture_is_refused_with_its_cure(tmp_path: Path) -> None:
    source = transformers_folder(tmp_path / "data2vec1")
    deeper = replace(CONFIG, model=replace(CONFIG.model, depth=4))
    write_config(deeper, tmp_path / "c.toml")
    with pytest.raises(ValueError, match="depth is 3 there and 4 here") as refused:
        start_from(new_state(deeper), str(source))
    message = str(refused.value)
    assert "alibi is False there and True here" in message
    assert "dropout" not in message and "decoder" not in message and "tokens" not in message
    cure = dict(parse_override(text) for text in re.findall(r"--set (\S+[^.;\s])", message))
    start_from(new_state(read_config(tmp_path / "c.toml", cure)), str(source))


def test_which_blocks_are_the_prenet_is_the_config_s(tmp_path: Path) -> None:
    source = transformers_folder(tmp_path / "data2vec1")
    model = replace(open_checkpoint(source).config, prenet_depth=1, depth=2)
    state = new_state(replace(CONFIG, model=model, utterance_loss="global", top_k=2))
    start_from(state, str(source))
    convert_checkpoint(source, tmp_path / "out")
    last = state.student.encoder.context.blocks[2].mlp.fc1.weight
    assert last.equal(read_weights(tmp_path / "out")["context.blocks.2.mlp.fc1.weight"])


def test_another_decoder_is_refused() -> None:
    with pytest.raises(ValueError, match="decoder_dim is 32 there and 64 here"):
        start_from(new_state(config_of(FAIRSEQ, decoder_dim=64)), str(FAIRSEQ))


def test_a_run_that_started_from_a_checkpoint_resumes_without_it(
    tones: Path, tmp_path: Path
) -> None:
    source = tmp_path / "d2v2.pt"
    shutil.copy(FAIRSEQ, source)
    config = replace(config_of(source, num_utterance_tokens=2), init=str(source))
    run(config, tones, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), StopAfter(2):
        run(config, tones, tmp_path / "parts")
    source.unlink()
    run(config, tones, tmp_path / "parts", resume=True)
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    facts = json.loads((tmp_path / "parts" / "init.json").read_text())
    assert facts["file"] == "d2v2.pt" and len(facts["sha256"]) == 64
    assert facts["drawn"] == ["2 utterance tokens"]
    assert read_config(tmp_path / "parts" / "config.toml").init == str(source)
    with pytest.raises(ValueError, match="init was"):
        run(replace(config, init="cold"), tones, tmp_path / "parts", resume=True)


def test_the_flag_and_its_line(
    tones: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_config(replace(config_of(FAIRSEQ), max_updates=1), tmp_path / "c.toml")
    words = ("pretrain", tmp_path / "c.toml", "--data", tones, "--out", tmp_path / "run", "--quiet")
    assert call(*words, "--init", tmp_path / "nowhere.pt") == 1
    assert "nowhere.pt" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert call(*words, "--init", FAIRSEQ) == 0
    [line] = [m for m in caplog.messages if m.startswith("started from")]
    assert "teacher: the checkpoint's moving average; drawn anew: nothing; left out: " in line


def test_a_model_that_is_saved_again_loads_as_a_student(tones: Path, tmp_path: Path) -> None:
    convert_checkpoint(FAIRSEQ, tmp_path / "student")
    config = replace(config_of(FAIRSEQ), init=str(tmp_path / "student"), max_updates=1)
    final = run(replace(config, peak_lr=0.0, ema_start=0.0), tones, tmp_path / "run")
    student = Emotion2vecStudent.from_pretrained(tmp_path / "student")
    assert_same(read_weights(final), student.encoder.state_dict())  # a rate of zero moves nothing


@pytest.mark.parametrize("init", ["", 3])
def test_init_is_a_word(init: Any) -> None:
    with pytest.raises(ValueError, match='write "cold" or name a checkpoint'):
        PretrainConfig(Emotion2vecConfig(), init=init)
