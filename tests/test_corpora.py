"""Corpora read by name, on copies of their folders made here, and on the real ones."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from emotion2vec.corpora.acted import ACTED
from emotion2vec.corpora.catalog import Corpus
from emotion2vec.corpora.known import CORPORA, find_corpus
from emotion2vec.manifest import read_manifest
from emotion2vec.probing.folds import folds_from_file
from emotion2vec.probing.protocols import PROTOCOLS, split

DATA = Path(os.environ.get("EMOTION2VEC_DATA", ROOT.parent / "shared" / "data"))

Make = Callable[[str], Path]


def two(numbers: range) -> list[str]:
    return [f"{number:02}" for number in numbers]


def ravdess(channel: str, emotions: int, actors: list[str]) -> Iterator[str]:
    for actor, emotion in product(actors, two(range(1, emotions + 1))):
        strengths = ["01"] if emotion == "01" else ["01", "02"]
        for rest in product(strengths, ["01", "02"], ["01", "02"]):
            yield f"Actor_{actor}/03-{channel}-{emotion}-{'-'.join(rest)}-{actor}.wav"


def files_of(name: str) -> Iterator[str]:
    """The files of a corpus as its owners call them."""
    actors = two(range(1, 25))
    if name == "ravdess":
        yield from ravdess("01", 8, actors)
        yield "Actor_01/02-01-01-01-01-01-01.mp4"  # a film of the same
    if name == "ravdess-song":
        yield from ravdess("02", 6, [actor for actor in actors if actor != "18"])
    if name == "savee":
        for speaker, emotion in product(("DC", "JE", "JK", "KL"), ("a", "d", "f", "h", "sa", "su")):
            yield from (f"AudioData/{speaker}/{emotion}{n}.wav" for n in two(range(1, 16)))
        for speaker in ("DC", "JE", "JK", "KL"):
            yield from (f"AudioData/{speaker}/n{n}.wav" for n in two(range(1, 31)))
    if name == "emodb":
        speakers = ("03", "08", "09", *two(range(10, 17)))
        sentences = ("a01", "a02", "a04", "a05", "a07", "b01", "b02", "b03", "b09", "b10")
        names = product(sentences, "WLEAFTN", speakers)
        yield from islice((f"wav/{who}{what}{how}a.wav" for what, how, who in names), 165, None)
    if name == "emovo":
        sentences = (
            "b1",
            "b2",
            "b3",
            "d1",
            "d2",
            "l1",
            "l2",
            "l3",
            "l4",
            *(f"n{i}" for i in "12345"),
        )
        for who, how in product(
            ("f1", "f2", "f3", "m1", "m2", "m3"), ("dis", "gio", "neu", "pau", "rab", "sor", "tri")
        ):
            yield from (f"EMOVO/{who}/{how}-{who}-{what}.wav" for what in sentences)
    if name == "cafe":
        for actor, emotion, strength, what in product(two(range(1, 13)), "CDJNPST", "12", "123456"):
            if emotion != "N" or strength == "1":
                yield f"CaFE_48k/Joie/Fort/{actor}-{emotion}-{strength}-{what}.wav"
    if name == "subesco":
        emotions = ("ANGRY", "DISGUST", "FEAR", "HAPPY", "NEUTRAL", "SAD", "SURPRISE")
        for who in product("FM", two(range(1, 11)), ["OISHI"], ["S"], "123456789" + "X"):
            for how, take in product(emotions, "12345"):
                stem = f"{'_'.join(who).replace('X', '10')}_{how}_{take}"
                odd = stem == "F_02_OISHI_S_2_SURPRISE_3"
                yield f"{stem}{']' * odd}.wav"
    if name == "shemo":
        who = [f"F{n}" for n in two(range(1, 32))] + [f"M{n}" for n in two(range(1, 57))]
        names = product(two(range(1, 8)), "AFHNSW", who)
        yield from islice(
            (f"{'fe' * (w[0] == 'F')}male/{w}{how}{n}.wav" for n, how, w in names), 2838
        )
    if name == "urdu":
        for number in range(400):
            who = f"S{'FM'[number % 29 % 2]}{number % 29 + 1}"
            folder = ("Angry", "Happy", "Neutral", "Sad")[number % 4]
            yield f"{folder}/{who}_F{number}_{folder[0]}{number:02}.wav"
    if name == "aesdd":
        folders = {"a": "anger", "d": "disgust", "f": "fear", "h": "happiness", "s": "sadness"}
        for (letter, folder), what, who in product(folders.items(), two(range(1, 21)), "123456"):
            yield f"{folder}/{letter}{what} ({who}).wav"
        yield from (
            "fear/f18 (5)b.wav",
            "anger/a06 (5)b.wav",
            "fear/f10 (01)b.wav",
            "sadness/s01 (5)a.wav",
        )


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tone") / "tone.wav"
    soundfile.write(path, np.sin(np.arange(800) / 8), 16000)
    return path


@pytest.fixture
def miniature(tmp_path: Path, tone: Path) -> Make:
    def make(name: str) -> Path:
        for file in files_of(name):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(tone, path)
        return tmp_path / name

    return make


# A record of each: its key, speaker, labels.
SEEN = {
    "ravdess": ("03-01-06-02-02-01-12", "12", "fearful", {"gender": "female", "fold": "2"}),
    "ravdess-song": ("03-02-04-01-01-02-24", "ravdess-24", "sad", {"intensity": "normal"}),
    "savee": ("JE-su02", "JE", "surprised", {"gender": "male"}),
    "emodb": ("16b10La", "16", "bored", {"gender": "female", "sentence": "b10"}),
    "emovo": ("gio-f2-l3", "f2", "happy", {"gender": "female", "sentence": "l3"}),
    "cafe": ("07-T-2-6", "07", "sad", {"gender": "male", "intensity": "high", "sentence": "6"}),
    "subesco": ("F_02_OISHI_S_2_SURPRISE_3]", "F_02", "surprised", {"gender": "female"}),
    "shemo": ("M21F01", "M21", "fearful", {"gender": "male"}),
    "urdu": ("SF9_F8_A08", "SF9", "angry", {"gender": "female"}),
    "aesdd": ("f10-01b", "1", "fearful", {"sentence": "10"}),
}


@pytest.mark.parametrize("corpus", ACTED, ids=lambda corpus: corpus.name)
def test_a_corpus_is_read_from_its_owners_folder(corpus: Corpus, miniature: Make) -> None:
    root = miniature(corpus.name)
    records = {record.key: record for record in corpus.read(root)}
    files = [name for name in files_of(corpus.name) if name.endswith(".wav")]
    assert len(records) == len(files)
    assert {record.emotion for record in records.values()} == set(corpus.classes)
    assert len({record.speaker for record in records.values()}) == corpus.speakers
    assert {record.language for record in records.values()} == {corpus.language}
    key, speaker, emotion, labels = SEEN[corpus.name]
    record = records[f"{corpus.name}-{key}"]
    assert record.speaker == (speaker if "-" in speaker else f"{corpus.name}-{speaker}")
    assert record.emotion == emotion and record.labels.items() >= labels.items()
    assert len(record.load()) == 800


@pytest.mark.parametrize("corpus", ACTED, ids=lambda corpus: corpus.name)
def test_missing_recordings_are_counted_in_one_error(corpus: Corpus, miniature: Make) -> None:
    root = miniature(corpus.name)
    wanted = len(corpus.read(root))
    for path in sorted(root.rglob("*.wav"))[:3]:
        path.unlink()
    with pytest.raises(ValueError, match=rf"3 of {wanted:,} recordings are missing under .*") as e:
        corpus.read(root)
    assert corpus.title in str(e.value) and corpus.layout.removesuffix(" ...") in str(e.value)
    shutil.rmtree(root)
    with pytest.raises(FileNotFoundError, match="is not there; check the path"):
        corpus.read(root)


def test_a_second_copy_is_refused_and_the_computers_own_files_passed_over(miniature: Make) -> None:
    root = miniature("emodb")
    (root / "._03a01Fa.wav").touch()
    (root / "wav" / "99x99.wav").touch()  # nothing that the corpus has
    assert len(CORPORA["emodb"].read(root)) == 535
    shutil.copytree(root / "wav", root / "copy")
    with pytest.raises(ValueError, match=r"535 recordings are there twice .* holds one copy"):
        CORPORA["emodb"].read(root)


def test_an_emotion_without_a_word_is_left_out(miniature: Make) -> None:
    root = miniature("urdu")
    first = sorted((root / "Sad").iterdir())[0]
    first.rename(first.with_name("SM7_F1_X01.wav"))
    assert len(CORPORA["urdu"].read(root)) == 399


def test_every_entry_is_whole() -> None:
    words = "angry disgusted fearful happy neutral sad surprised calm bored excited contempt"
    for name, corpus in CORPORA.items():
        assert name == corpus.name == find_corpus(name).name
        assert set(corpus.classes) <= {*words.split(), "frustrated", "enthusiastic", "other"}
        assert set(corpus.protocols) <= set(PROTOCOLS) and corpus.protocols
        assert all(trap.endswith(".") for trap in corpus.traps) and corpus.traps
        assert len(corpus.language) == 2 and corpus.licence and corpus.source and corpus.layout
    with pytest.raises(ValueError, match=r"no corpus 'ravdes'; there are .*ravdess"):
        find_corpus("ravdes")


def test_ravdess_official_folds_follow_from_the_names(miniature: Make) -> None:
    folds = split("official", CORPORA["ravdess"].read(miniature("ravdess")))
    assert [len({r.speaker for r in fold.test}) for fold in folds.folds] == [4] * 6


@pytest.mark.data
@pytest.mark.skipif(not (DATA / "emodb").is_dir(), reason="the corpora are not at hand")
@pytest.mark.parametrize("name", ["ravdess", "emodb", "urdu"])
def test_real_corpora_are_read_as_their_manifests_say(name: str) -> None:
    words = {"fear": "fearful", "disgust": "disgusted", "surprise": "surprised", "boredom": "bored"}
    ours = {r.key: r for r in CORPORA[name].read(DATA / name)}
    theirs = read_manifest(DATA / name / "manifest.jsonl")
    assert len(ours) == len(theirs)
    for record in theirs:
        assert ours[record.key].speaker == record.speaker
        assert ours[record.key].path == record.path
        assert ours[record.key].emotion == words.get(str(record.emotion), record.emotion)
    if name == "ravdess":
        made = split("official", list(ours.values()))
        file = folds_from_file(DATA / name / "folds.json", theirs, name="emobox")
        assert [{r.key for r in f.test} for f in made.folds] == [
            {r.key for r in f.test} for f in file.folds
        ]
    if name == "urdu":
        most = Counter((r.speaker, r.emotion) for r in theirs)
        best = {speaker: 0 for speaker, _ in most}
        for (speaker, _), count in most.items():
            best[speaker] = max(best[speaker], count)
        assert sum(best.values()) == 384
