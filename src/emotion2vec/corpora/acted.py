"""Corpora whose file names say everything: speaker, emotion, sentence.

What is known of each is from its owners' pages and from EmoBox's lists (github.com/emo-box/EmoBox);
the counts of RAVDESS, EmoDB and URDU are from the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emotion2vec.corpora.catalog import Corpus, missing_files, sounds_under
from emotion2vec.manifest import Record

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Names:
    """How the files of a corpus are called."""

    pattern: str
    """Of a name without suffix, any folders before it; its groups `speaker`, `emotion` and
    `sentence` become what the record says."""
    recordings: int
    """How many the corpus has; fewer are refused."""
    key: str | None = None
    """Made of the pattern's groups, where the file's stem does not do."""
    voices: str | None = None
    """The corpus that the speakers are named after, where it is another one."""
    more: Callable[[re.Match[str]], Labels] = lambda match: {}
    """Labels that follow from a name."""


def read_names(corpus: Corpus, names: Names, root: Path) -> list[Record]:
    """The recordings whose names fit; others are passed over, emotions without a label left out.

    Raises:
        FileNotFoundError: if there is no such folder
        ValueError: if fewer recordings are there than the corpus has, or some twice
    """
    found = _find(corpus, names, root)
    missing = names.recordings - len(found)
    if missing > 0:
        raise missing_files(
            corpus.title, missing, names.recordings, root=root, layout=corpus.layout
        )
    records = []
    for key, (path, match) in found.items():
        emotion = corpus.label_map.get(match["emotion"])
        if emotion is not None:
            labels = {"emotion": emotion, **names.more(match)}
            if "sentence" in match.groupdict():
                labels["sentence"] = match["sentence"]
            speaker = f"{names.voices or corpus.name}-{match['speaker']}"
            records.append(
                Record(key, str(path), speaker=speaker, language=corpus.language, labels=labels)
            )
    return records


def _find(corpus: Corpus, names: Names, root: Path) -> dict[str, tuple[Path, re.Match[str]]]:
    """Return path and match of each recording, by its key."""
    pattern = re.compile(f"(?:.*/)?{names.pattern}")
    found: dict[str, tuple[Path, re.Match[str]]] = {}
    again: list[Path] = []
    for path in sounds_under(root):
        match = pattern.fullmatch(path.with_suffix("").as_posix())
        if match:
            stem = names.key.format(**match.groupdict()) if names.key else path.stem
            if found.setdefault(f"{corpus.name}-{stem}", (path, match))[0] != path:
                again.append(path)
    if again:
        raise ValueError(
            f"{corpus.title}: {len(again):,} recordings are there twice under {root}, such as "
            f"{again[0].name}; give the folder that holds one copy."
        )
    return found


def _corpus(names: Names, label_map: Labels, **facts: Any) -> Corpus:
    """Return the corpus that is read by names."""
    corpus = Corpus(
        classes=tuple(sorted(set(label_map.values()))),
        label_map=label_map,
        read=lambda root: read_names(corpus, names, root),
        **facts,
    )
    return corpus


def _gender(is_female: bool) -> Labels:
    return {"gender": "female" if is_female else "male"}


def _has_f(match: re.Match[str]) -> Labels:
    return _gender("F" in match["speaker"].upper())


RAVDESS_FOLDS = (
    *("01 11 20 21", "04 10 12 14", "08 09 19 23"),
    *("03 05 07 24", "02 15 16 18", "06 13 17 22"),
)
"""The actors whom each of EmoBox's folds tests."""


def _ravdess(match: re.Match[str]) -> Labels:
    return {
        **_gender(int(match["speaker"]) % 2 == 0),
        "intensity": {"01": "normal", "02": "strong"}[match["intensity"]],
    }


def _ravdess_speech(match: re.Match[str]) -> Labels:
    fold = next(i for i, actors in enumerate(RAVDESS_FOLDS, 1) if match["speaker"] in actors)
    return {**_ravdess(match), "fold": str(fold)}


def _ravdess_name(channel: str) -> str:
    return (
        rf"03-{channel}-(?P<emotion>0\d)-(?P<intensity>0[12])-(?P<sentence>0[12])-0[12]-"
        r"(?P<speaker>0[1-9]|1\d|2[0-4])"
    )


_RAVDESS = {
    "language": "en",
    "licence": "CC BY-NC-SA 4.0",
    "source": "Livingstone and Russo, PLoS ONE 2018, doi 10.1371/journal.pone.0196391; "
    "zenodo.org, record 1188976",
}
_SUNG = {"01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful"}

ACTED: tuple[Corpus, ...] = (
    _corpus(
        Names(
            _ravdess_name("01"),
            recordings=1440,
            more=_ravdess_speech,
        ),
        name="ravdess",
        title="RAVDESS, speech",
        label_map={**_SUNG, "07": "disgusted", "08": "surprised"},
        speakers=24,
        traps=(
            "Two sentences only, and neutral has half the recordings of the other emotions.",
            "Quiet: 63 recordings are below -55 dBFS, normalise them.",
            "03-01-03-01-02-01-07 and 03-01-03-01-02-02-07 hold the same samples.",
            "Random folds share speakers: the paper's 81 % WA of data2vec 2.0 is 65 % on EmoBox's "
            "folds of unseen actors.",
            "Some copies hold every file twice, in two folders.",
        ),
        protocols=("official", "speaker-out", "speaker-folds", "random"),
        layout="Actor_01/03-01-01-01-01-01-01.wav ... (Audio_Speech_Actors_01-24.zip)",
        **_RAVDESS,
    ),
    _corpus(
        Names(
            _ravdess_name("02"),
            recordings=1012,
            voices="ravdess",
            more=_ravdess,
        ),
        name="ravdess-song",
        title="RAVDESS, song",
        label_map=_SUNG,
        speakers=23,
        traps=(
            "Sung, not spoken, by the actors of RAVDESS speech: the two share speakers.",
            "Actor 18 does not sing.",
        ),
        protocols=("speaker-out", "speaker-folds", "random"),
        layout="Actor_01/03-02-01-01-01-01-01.wav ... (Audio_Song_Actors_01-24.zip)",
        **_RAVDESS,
    ),
    _corpus(
        Names(
            r"(?:.*_)?(?P<speaker>DC|JE|JK|KL)[/_](?P<emotion>a|d|f|h|n|sa|su)(?P<number>\d\d)",
            recordings=480,
            key="{speaker}-{emotion}{number}",
            more=lambda match: _gender(False),
        ),
        name="savee",
        title="SAVEE",
        language="en",
        label_map={"a": "angry", "d": "disgusted", "f": "fearful", "h": "happy", "n": "neutral"}
        | {"sa": "sad", "su": "surprised"},
        speakers=4,
        licence="none found; on registration with the owners, for research",
        source="Haq and Jackson, University of Surrey, AVSP 2009",
        traps=(
            "Four men: an interval over speakers says little.",
            "A quarter of the recordings is neutral.",
            "Most sentences are said with one emotion only: their words can tell it.",
        ),
        protocols=("speaker-out", "random"),
        layout="AudioData/DC/a01.wav ..., or DC_a01.wav ...",
    ),
    _corpus(
        Names(
            r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])[a-f]?",
            recordings=535,
            more=lambda match: _gender(match["speaker"] in "08 09 13 14 16"),
        ),
        name="emodb",
        title="EmoDB",
        language="de",
        label_map={"W": "angry", "L": "bored", "E": "disgusted", "A": "fearful", "F": "happy"}
        | {"N": "neutral", "T": "sad"},
        speakers=10,
        licence="CC0 1.0 as audEERING publishes it; the owners' page states none",
        source="Burkhardt, Paeschke, Rolfes, Sendlmeier and Weiss, Interspeech 2005",
        traps=(
            "EmoBox's five folds have all speakers on both sides.",
            "Copies cut or padded to 2 s are in circulation; their scores cannot be compared.",
            "The owners kept what most listeners recognised: it is easier than speech is.",
            "Anger has 127 recordings, disgust 46.",
        ),
        protocols=("speaker-out", "random"),
        layout="wav/03a01Fa.wav ...",
    ),
    _corpus(
        Names(
            r"(?P<emotion>dis|gio|neu|pau|rab|sor|tri)-(?P<speaker>[fm][123])-(?P<sentence>[bdln]\d)",
            recordings=588,
            more=_has_f,
        ),
        name="emovo",
        title="EMOVO",
        language="it",
        label_map={"rab": "angry", "dis": "disgusted", "pau": "fearful", "gio": "happy"}
        | {"neu": "neutral", "tri": "sad", "sor": "surprised"},
        speakers=6,
        licence="none found",
        source="Costantini, Iaderola, Paoloni and Todisco, LREC 2014",
        traps=("Six speakers and 14 sentences, some of them nonsense.",),
        protocols=("speaker-out", "random"),
        layout="f1/dis-f1-b1.wav ...",
    ),
    _corpus(
        Names(
            r"(?P<speaker>\d\d)-(?P<emotion>[CDJNPST])-(?P<intensity>[12])-(?P<sentence>[1-6])",
            recordings=936,
            more=lambda match: {
                **_gender(int(match["speaker"]) % 2 == 0),
                "intensity": {"1": "low", "2": "high"}[match["intensity"]],
            },
        ),
        name="cafe",
        title="CaFE",
        language="fr",
        label_map={"C": "angry", "D": "disgusted", "P": "fearful", "J": "happy", "N": "neutral"}
        | {"T": "sad", "S": "surprised"},
        speakers=12,
        licence="CC BY-NC-SA 4.0",
        source="Gournay, Lahaie and Lefebvre, MMSys 2018; zenodo.org, record 1478765",
        traps=(
            "Neutral has half the recordings of the other emotions.",
            "The 48 kHz and the 192 kHz archives hold the same recordings: unpack one of them.",
        ),
        protocols=("speaker-folds", "speaker-out", "random"),
        layout="Colère/Faible/01-C-1-1.wav ... (CaFE_48k.zip)",
    ),
    _corpus(
        Names(
            r"(?P<speaker>[FM]_\d\d)_[A-Z]+_S_(?P<sentence>\d+)_(?P<emotion>[A-Z]+)_\d\]?",
            recordings=7000,
            more=_has_f,
        ),
        name="subesco",
        title="SUBESCO",
        language="bn",
        label_map={"ANGRY": "angry", "DISGUST": "disgusted", "FEAR": "fearful", "HAPPY": "happy"}
        | {"NEUTRAL": "neutral", "SAD": "sad", "SURPRISE": "surprised"},
        speakers=20,
        licence="CC BY 4.0",
        source="Sultana, Rahman, Selim and Iqbal, PLoS ONE 2021, doi 10.1371/journal.pone.0250173; "
        "zenodo.org, record 4526477",
        traps=(
            "Five takes of each sentence by each actor in each emotion: random folds test on "
            "near copies of what they trained on.",
            "The intended emotion is the label; listeners agreed with it for 71 %.",
        ),
        protocols=("speaker-folds", "speaker-out", "random"),
        layout="F_01_OISHI_S_1_ANGRY_1.wav ...",
    ),
    _corpus(
        Names(
            r"(?P<speaker>[FM]\d\d)(?P<emotion>[AFHNSW])(?P<number>\d+)",
            recordings=2838,
            more=_has_f,
        ),
        name="shemo",
        title="ShEMO",
        language="fa",
        label_map={"A": "angry", "F": "fearful", "H": "happy", "N": "neutral", "S": "sad"}
        | {"W": "surprised"},
        speakers=87,
        licence="free for academic purposes (paper); Apache 2.0 (the owners' page on the hub)",
        source="Mohamad Nezami, Jamshid Lou and Karami, Language Resources and Evaluation 2019, "
        "doi 10.1007/s10579-018-9427-x",
        traps=(
            "The paper counts 3,000 utterances, EmoBox's list 2,838; no fewer are taken.",
            "Anger and neutral are 72 % of EmoBox's list, fear has 29 recordings.",
            "Taken from radio plays; EmoBox's fold has speakers on both sides.",
        ),
        protocols=("speaker-folds", "random"),
        layout="female/F01A01.wav ..., male/M01A01.wav ...",
    ),
    _corpus(
        Names(
            r"(?P<speaker>S[FM]\d+)_F\d+_(?P<emotion>[A-Z])\d+",
            recordings=400,
            more=_has_f,
        ),
        name="urdu",
        title="URDU",
        language="ur",
        label_map={"A": "angry", "H": "happy", "N": "neutral", "S": "sad"},
        speakers=29,
        licence="research only, from television: the owners' readme, no formal licence",
        source="Latif, Qayyum, Usman and Qadir, FIT 2018, arXiv 1812.10411",
        traps=(
            "26 of the 29 speakers have one emotion only: the speaker alone tells it for 96 %.",
            "Neutral recordings are louder and off zero: five trivial numbers reach 61.5 % WA on "
            "unseen speakers.",
            "The readme says 38 speakers, the names hold 29.",
            "EmoBox's fold has 18 speakers on both sides.",
        ),
        protocols=("speaker-folds", "random"),
        layout="Sad/SF10_F1_S01.wav ...",
    ),
    _corpus(
        Names(
            r"(?P<emotion>[adfhs])(?P<sentence>\d\d) ?"
            r"\((?P<number>0*(?P<speaker>\d+))\)(?P<take>[a-z]?)",
            recordings=604,
            key="{emotion}{sentence}-{number}{take}",
        ),
        name="aesdd",
        title="AESDD",
        language="el",
        label_map={"a": "angry", "d": "disgusted", "f": "fearful", "h": "happy", "s": "sad"},
        speakers=6,
        licence="none found",
        source="Vryzas, Kotsakis, Liatsou, Dimoulas and Kalliris, JAES 2018; "
        "m3c.web.auth.gr, Aristotle University of Thessaloniki",
        traps=(
            "The names hold 6 speakers, where EmoBox and the first version say 5; it still grows.",
            "The sixth speaker's recordings are about twice as long as the others'.",
            "No neutral speech; one sentence of 20 is improvised by each actor for each emotion.",
        ),
        protocols=("speaker-out", "random"),
        layout="anger/a01 (1).wav ...",
    ),
)
