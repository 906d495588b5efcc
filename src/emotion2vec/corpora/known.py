"""The corpora that can be called by name."""

from __future__ import annotations

from emotion2vec.corpora.acted import ACTED
from emotion2vec.corpora.catalog import Corpus
from emotion2vec.corpora.dialogues import DIALOGUES
from emotion2vec.corpora.listed import LISTED
from emotion2vec.corpora.sentiment import SENTIMENT

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
