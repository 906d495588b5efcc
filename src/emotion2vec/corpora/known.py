"""The corpora that can be called by name."""

from __future__ import annotations

from pathlib import Path

from emotion2vec.corpora.acted import ACTED
from emotion2vec.corpora.catalog import Corpus
from emotion2vec.corpora.dialogues import DIALOGUES
from emotion2vec.corpora.emobox import read_emobox
from emotion2vec.corpora.listed import LISTED
from emotion2vec.corpora.own import read_own
from emotion2vec.corpora.sentiment import SENTIMENT
from emotion2vec.manifest import Record

CORPORA: dict[str, Corpus] = {
    corpus.name: corpus for corpus in (*ACTED, *DIALOGUES, *LISTED, *SENTIMENT)
}


def find_corpus(name: str) -> Corpus:
    """The corpus of that name.

    Raises:
        ValueError: if there is none; it lists the known ones
    """
    if name not in CORPORA:
        raise ValueError(f"there is no corpus {name!r}; there are {', '.join(sorted(CORPORA))}.")
    return CORPORA[name]


def read_corpus(name: str, where: Path | None, *, emobox: Path | None = None) -> list[Record]:
    """The recordings of a corpus: by EmoBox's lists, a known one by its reader, or one's own.

    Args:
        name: of a known corpus or, with `emobox`, of one of EmoBox's; anything for one's own
        where: a known corpus's folder; one's own list or folder; with `emobox`, the folder that
            holds its `downloads`, if that is another one
        emobox: a copy of EmoBox

    Raises:
        FileNotFoundError, ValueError: as the readers `read_emobox`, `Corpus.read`, `read_own`
    """
    if emobox is not None:
        return read_emobox(emobox, name, audio=where)
    if where is None:
        raise ValueError(f"the corpus {name} is read from a folder; say which.")
    if name in CORPORA and not where.is_file():
        return CORPORA[name].read(where)
    return read_own(where)
