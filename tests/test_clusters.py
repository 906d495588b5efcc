"""Pseudo-labels: k-means, labels at hidden frames, runs that learn them, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY, write_tone
from test_pretraining_loop import CONFIG, assert_same, run, weights
from test_resume import StopAfter

from emotion2vec import Emotion2vec, Emotion2vecConfig
from emotion2vec.audio import load_audio, normalize
from emotion2vec.backbones import random_encoder
from emotion2vec.jsonl import read_jsonl
from emotion2vec.losses import cluster_accuracy, cluster_loss
from emotion2vec.pretraining.clusters import ClusterTeacher, fit_clusters, kmeans, nearest

CLUSTERS = replace(CONFIG, clusters=(4, 12), utterance_loss="none", cluster_frames=400)


def teacher_of(encoder: Emotion2vec, **options: Any) -> ClusterTeacher:
    waveforms = torch.randn(6, 2, 8000, generator=torch.Generator().manual_seed(0))
    values: dict[str, Any] = {"counts": (3, 8), "layer": -1, "num_frames": 250, "seed": 1}
    return fit_clusters(encoder, waveforms, **values | options)


def test_kmeans_finds_what_scikit_learn_finds() -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(600, 5, generator=generator)
    frames += 12 * torch.randint(0, 2, (600, 5), generator=generator)  # up to 32 corners
    start = frames[torch.randperm(600, generator=torch.Generator().manual_seed(3))[:20]]
    theirs = cluster.KMeans(20, init=start.numpy(), n_init=1, max_iter=20, tol=0).fit(frames)
    ours = kmeans(frames, 20, generator=torch.Generator().manual_seed(3))
    np.testing.assert_allclose(ours, theirs.cluster_centers_, atol=1e-4)
    labels, distances = nearest(frames, ours)
    assert labels.tolist() == theirs.labels_.tolist()
    assert float(distances.sum()) == pytest.approx(theirs.inertia_, rel=1e-4)


def test_a_cluster_without_frames_starts_again_at_a_far_one() -> None:
    frames = torch.cat([torch.zeros(50, 2), torch.tensor([[9.0, 9.0]])])  # 50 equal, 1 far
    centres = kmeans(frames, 2, generator=torch.Generator().manual_seed(0))
    assert sorted(centres[:, 0].tolist()) == [0.0, 9.0]


def test_the_loss_is_that_of_each_head_at_hidden_frames() -> None:
    logits, counts = torch.randn(2, 5, 7), (3, 4)
    labels = torch.stack([torch.randint(count, (2, 5)) for count in counts], dim=-1)
    hidden = torch.tensor([[True, True, False, False, True], [False] * 4 + [True]])
    expected = [0.0, 0.0]
    for row, frame in hidden.nonzero().tolist():
        first, second = logits[row, frame, :3], logits[row, frame, 3:]
        for part, label in zip((first, second), labels[row, frame], strict=True):
            expected[row] -= float(part.log_softmax(dim=0)[label]) / 2
    assert cluster_loss(logits, labels, hidden, counts).tolist() == pytest.approx(expected)
    sure = torch.cat(
        [torch.nn.functional.one_hot(labels[..., i], n) for i, n in enumerate(counts)], dim=-1
    ).float()
    sure[~hidden] = torch.randn(6, 7)  # what stands at visible frames does not count
    assert cluster_accuracy(sure, labels, hidden, counts) == 1


@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_labels_are_the_nearest_centres_of_a_layer(
    layer: int, tiny_config: Emotion2vecConfig, tmp_path: Path
) -> None:
    encoder = random_encoder(tiny_config)
    teacher = teacher_of(encoder, layer=layer)
    teacher.save(tmp_path / "clusters")
    again = ClusterTeacher.load(tmp_path / "clusters", counts=(3, 8), layer=layer)
    waveform = torch.randn(2, 6000)
    targets = teacher(waveform)
    assert targets.frames.equal(again(waveform).frames)
    assert targets.frames.shape == (2, encoder.config.num_frames(6000), 2)
    output = encoder(waveform, output_hidden_states=True)
    frames = output.last_hidden_state if layer == -1 else output.hidden_states[layer]
    expected = torch.cdist(frames, teacher.centres[3:]).argmin(dim=-1)
    assert targets.frames[..., 1].equal(expected)
    assert targets.utterance.shape == (2, 0)


def test_more_frames_than_asked_for_are_not_read(tiny_config: Emotion2vecConfig) -> None:
    read = []

    def waveforms() -> Any:
        for number in range(100):
            read.append(number)
            yield torch.randn(1, 16000)

    fit_clusters(random_encoder(tiny_config), waveforms(), counts=(4,), layer=-1, num_frames=120,
                 seed=0)  # fmt: skip
    assert len(read) == 3  # 49 frames each


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layer": 4}, "cluster_layer is 4, but the encoder has 3 blocks"),
        ({"counts": (300,)}, r"clusters is \[300\], but the recordings have 250 frames"),
    ],
)
def test_what_cannot_be_clustered(
    options: dict[str, Any], message: str, tiny_config: Emotion2vecConfig
) -> None:
    with pytest.raises(ValueError, match=message):
        teacher_of(random_encoder(tiny_config), **options)


def test_pseudo_labels_are_learnt_beyond_the_commonest(tmp_path: Path) -> None:
    # Steady tones of four pitches: a hidden frame follows from those around it.
    for i in range(12):
        write_tone(tmp_path / "data" / f"{i}.wav", 0.6, pitch=110 * 2 ** (i % 4))
    none = dict.fromkeys(("attention_dropout", "mlp_dropout", "prenet_dropout"), 0.0)
    config = replace(
        CLUSTERS, model=Emotion2vecConfig(**TINY, **none), block_drop=0.0, max_updates=30,
        peak_lr=5e-3, warmup_updates=5, save_every=30, log_every=5,
    )  # fmt: skip
    run(config, tmp_path / "data", tmp_path / "run")
    lines = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    teacher = ClusterTeacher.load(tmp_path / "run" / "clusters", counts=(4, 12), layer=-1)
    clips = [normalize(load_audio(path)) for path in (tmp_path / "data").iterdir()]
    labels = teacher(torch.from_numpy(np.stack(clips))).frames.flatten(0, 1)  # (N, heads)
    commonest = [labels[:, head].bincount().max() / len(labels) for head in range(2)]
    assert lines[0]["cluster_accuracy"] < lines[-1]["cluster_accuracy"]
    assert lines[-1]["cluster_accuracy"] > float(sum(commonest) / 2) + 0.1
    assert lines[-1]["frame_loss"] < 0.8 * lines[0]["frame_loss"]


def test_resuming_keeps_the_pseudo_labels(tones: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(CLUSTERS, tones, whole)
    with pytest.raises(KeyboardInterrupt), StopAfter(3):
        run(CLUSTERS, tones, parts)
    run(CLUSTERS, tones, parts, resume=True)
    assert_same(weights(whole), weights(parts))
    name = "clusters/centres.safetensors"
    assert (whole / name).read_bytes() == (parts / name).read_bytes()
    (parts / name).unlink()
    with pytest.raises(FileNotFoundError, match="the run's pseudo-labels are gone"):
        run(CLUSTERS, tones, parts, resume=True)
    with pytest.raises(ValueError, match=r"has 16 centres, but clusters is \[4\]"):
        run(replace(CLUSTERS, clusters=(4,)), tones, whole, resume=True)


def test_another_encoder_may_give_the_labels(tones: Path, tmp_path: Path) -> None:
    wide = Emotion2vecConfig(**{**TINY, "embed_dim": 64, "conv_channels": (16,) * 7})
    random_encoder(wide).save_pretrained(tmp_path / "wide")
    config = replace(CLUSTERS, cluster_model=str(tmp_path / "wide"), cluster_layer=1)
    model = Emotion2vec.from_pretrained(run(config, tones, tmp_path / "run"))
    assert model.config.embed_dim == TINY["embed_dim"]  # the student keeps its own width
    frozen = Emotion2vec.from_pretrained(tmp_path / "run" / "clusters")
    assert frozen.config.embed_dim == 64
    strides = Emotion2vecConfig(**{**TINY, "conv_strides": (5, 2, 2, 2, 2, 2, 1)})
    random_encoder(strides).save_pretrained(tmp_path / "strides")
    with pytest.raises(ValueError, match="cluster_model has conv_strides"):
        run(replace(config, cluster_model=str(tmp_path / "strides")), tones, tmp_path / "other")


def test_an_adapted_run_starts_from_the_run_before(tones: Path, tmp_path: Path) -> None:
    run(replace(CONFIG, max_updates=2), tones, tmp_path / "base")
    state = tmp_path / "base" / "last.safetensors"
    labelled = replace(CLUSTERS, max_updates=1, init=str(state))  # the first update has rate 0
    adapted = Emotion2vec.from_pretrained(run(labelled, tones, tmp_path / "ptapt"))
    base = Emotion2vec.from_pretrained(tmp_path / "base" / "final")
    frozen = Emotion2vec.from_pretrained(tmp_path / "ptapt" / "clusters")  # labels: the base's own
    assert_same(adapted.state_dict(), base.state_dict())
    assert_same(frozen.state_dict(), base.state_dict())
    again = replace(
        labelled,
        init=str(tmp_path / "ptapt" / "last.safetensors"),
        cluster_model=str(tmp_path / "ptapt" / "final"),
    )
    run(again, tones, tmp_path / "second")
    run(replace(CONFIG, max_updates=1, init=again.init), tones, tmp_path / "tapt")
