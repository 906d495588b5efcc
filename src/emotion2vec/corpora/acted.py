"""Acted corpora whose file names say everything: speaker, emotion, sentence."""

from __future__ import annotations

from emotion2vec.corpora.catalog import Corpus

ACTED: tuple[Corpus, ...] = ()
