"""Heads on frozen frames: runs side by side, packed clips, what each can learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emotion2vec.encoding import default_device
from emotion2vec.probing.heads import HEADS, HeadConfig, LinearProbe
from emotion2vec.probing.training import ClipSet, Fitted, fit_heads, join, predict

WIDTH, LAYERS = 16, 3


def make_clips(count: int, *, layers: bool = False, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    shape = (LAYERS, WIDTH) if layers else (WIDTH,)
    return [
        random.normal(size=(random.integers(3, 60), *shape)).astype(np.float32)
        for _ in range(count)
    ]


def make_head(name: str, seeds: tuple[int, ...] = (3,)) -> torch.nn.Module:
    shape = (LAYERS, WIDTH) if name == "layers" else WIDTH
    head = HEADS[name](shape, 4, 8, seeds)
    with torch.no_grad():
        for parameter in head.parameters():  # no zeros that hide what they multiply
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.manual_seed(5)))
    return head


@pytest.mark.parametrize("name", HEADS)
def test_a_clip_gets_the_same_alone_and_with_others(name: str) -> None:
    clips = make_clips(5, layers=name == "layers")
    head = make_head(name)
    together = head(*join(clips, "cpu"))
    alone = torch.cat([head(*join([clip], "cpu")) for clip in clips])
    assert together.shape[1:] == (1, 4)
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, head in HEADS.items() if head.stacks])
def test_runs_side_by_side_are_the_runs_alone(name: str) -> None:
    shape = (LAYERS, WIDTH) if name == "layers" else WIDTH
    frames = join(make_clips(4, layers=name == "layers"), "cpu")
    both = HEADS[name](shape, 4, 8, (1, 7))(*frames)
    for run, seed in enumerate((1, 7)):
        alone = HEADS[name](shape, 4, 8, (seed,))(*frames)
        assert torch.allclose(both[:, run], alone[:, 0], atol=1e-6)
    assert not torch.allclose(both[:, 0], both[:, 1], atol=1e-3)


def test_the_probe_has_the_papers_number_of_parameters() -> None:
    count = sum(p.numel() for p in LinearProbe(768, 4).parameters())
    assert round(count / 1e6, 2) == 0.20  # paper, section 4.2


def train(name: str, *, seeds: tuple[int, ...] = (0,), epochs: int = 15) -> list[Fitted]:
    """Fit on clips whose class is told by one channel of the second layer."""
    clips = make_clips(120, layers=name == "layers")
    classes = torch.arange(120) % 2
    for clip, label in zip(clips, classes.tolist(), strict=True):
        (clip[:, 1] if name == "layers" else clip)[:, 2] += 3.0 * label
    config = HeadConfig(name, hidden_dim=16, epochs=epochs, batch_size=16)
    parts = ClipSet(clips[:80], classes[:80]), ClipSet(clips[80:], classes[80:])
    return fit_heads(*parts, 2, config=config, seeds=seeds)


@pytest.mark.parametrize("name", [name for name in HEADS if name not in ("frames",)])
def test_every_head_learns_what_is_there(name: str) -> None:
    (fitted,) = train(name)
    assert fitted.scores[0] > 0.9 and 1 <= fitted.epochs[0] <= 15


def test_seeds_trained_as_one_are_the_seeds_trained_alone() -> None:
    (together,) = train("linear", seeds=(0, 1, 2), epochs=4)
    for run, seed in enumerate((0, 1, 2)):
        (alone,) = train("linear", seeds=(seed,), epochs=4)
        assert together.epochs[run] == alone.epochs[0]
        for ours, theirs in zip(together.head.parameters(), alone.head.parameters(), strict=True):
            assert torch.allclose(ours[run], theirs[0], atol=1e-5)


def test_heads_that_do_not_stack_are_trained_one_after_the_other() -> None:
    fitted = train("gru", seeds=(0, 1), epochs=1)
    assert len(fitted) == 2 and fitted[0].epochs == [1]


def test_pieces_of_a_batch_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    (whole,) = train("attention", epochs=2)
    monkeypatch.setattr("emotion2vec.probing.training.CHUNK_FRAMES", 1)  # clip by clip
    (pieces,) = train("attention", epochs=2)
    for ours, theirs in zip(whole.head.parameters(), pieces.head.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_attention_begins_as_the_mean() -> None:
    frames = join(make_clips(3), "cpu")
    plain, attention = HEADS["linear"](WIDTH, 4, 8, (1,)), HEADS["attention"](WIDTH, 4, 8, (1,))
    assert torch.allclose(plain(*frames), attention(*frames), atol=1e-6)


def test_layers_are_weighed_by_a_softmax() -> None:
    head = HEADS["layers"]((LAYERS, WIDTH), 4, 8, (1,))
    (clip,) = make_clips(1, layers=True)
    with torch.no_grad():
        head.layers[0] = torch.tensor([-50.0, 50.0, -50.0])  # the second layer alone
    plain = HEADS["linear"](WIDTH, 4, 8, (1,))
    assert torch.allclose(head(*join([clip], "cpu")), plain(*join([clip[:, 1]], "cpu")), atol=1e-5)


@pytest.mark.parametrize("name, layers", [("linear", True), ("layers", False)])
def test_one_layer_and_all_are_not_mixed_up(name: str, layers: bool) -> None:
    part = ClipSet(make_clips(4, layers=layers), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(ValueError, match="was given frames of shape"):
        fit_heads(part, part, 2, config=HeadConfig(name, epochs=1))


def test_an_unknown_head_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="the head is 'svm'; choose one of linear, "):
        HeadConfig("svm")


def test_values_are_learned_and_their_frames_too() -> None:
    clips = make_clips(120)
    wanted = torch.tensor(np.stack([clip.mean(axis=0)[:2] for clip in clips]))
    config = HeadConfig(epochs=20, batch_size=16)
    parts = ClipSet(clips[:80], wanted[:80]), ClipSet(clips[80:], wanted[80:])
    (fitted,) = fit_heads(*parts, 2, kind="values", config=config)
    assert fitted.scores[0] > 0.7
    frames = [torch.from_numpy(clip[:, :2]) for clip in clips]
    parts = ClipSet(clips[:80], torch.cat(frames[:80])), ClipSet(clips[80:], torch.cat(frames[80:]))
    (fitted,) = fit_heads(
        *parts, 2, kind="frame values", config=HeadConfig("frames", epochs=20, batch_size=16)
    )
    assert fitted.scores[0] > 0.9
    assert predict(fitted.head, clips[80:]).shape == (sum(map(len, clips[80:])), 1, 2)


@pytest.mark.gpu
@pytest.mark.skipif(default_device() == "cpu", reason="needs an accelerator")
@pytest.mark.parametrize("name", HEADS)
def test_an_accelerator_answers_as_a_cpu(name: str) -> None:
    clips = make_clips(5, layers=name == "layers")
    head = make_head(name)
    expected = predict(head, clips)
    assert torch.allclose(predict(head.to(default_device()), clips), expected, atol=1e-3)
