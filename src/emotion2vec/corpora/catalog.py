"""What is written down about a corpus, and what its reader says when its folder is not whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from emotion2vec.audio import AUDIO_SUFFIXES
from emotion2vec.manifest import Record


@dataclass(frozen=True)
class Corpus:
    """A corpus of labelled speech: facts, and how it is read."""

    name: str
    """What commands call it, such as "ravdess"."""
    title: str
    language: str
    """ISO 639-1, such as "en"."""
    classes: tuple[str, ...]
    """Emotions, in our words; none where only sentiment is labelled."""
    label_map: Mapping[str, str]
    """What the owners write -> our word. A recording with another label has no `emotion`, and is
    left out unless it has a sentiment, dimensions or a place in a dialogue."""
    speakers: int
    """0 where nobody says."""
    licence: str
    source: str
    """Who made it and where it is published."""
    traps: tuple[str, ...]
    """What has misled people who used it; a sentence each."""
    protocols: tuple[str, ...]
    """Names in `probing.protocols` that make sense here; the official or the paper's first."""
    read: Callable[[Path], list[Record]]
    """The recordings under a folder; raises one ValueError that counts what is missing."""
    layout: str
    """What the folder must hold, in one line."""


def sounds_under(root: Path) -> list[Path]:
    """The audio files in a folder, searched deeply, in order; hidden files are passed over.

    Raises:
        FileNotFoundError: if there is no such folder

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> for name in ("a.wav", "._a.wav", "a.txt"):
    ...     (root / name).touch()
    >>> [path.name for path in sounds_under(root)]
    ['a.wav']
    """
    if not root.is_dir():
        raise FileNotFoundError(f"the corpus's folder {root} is not there; check the path.")
    return sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")
    )


def missing_files(
    corpus: str, missing: Iterable[str | Path] | int, wanted: int, *, root: Path, layout: str
) -> ValueError:
    """What to raise where files of a corpus are not there: how many, of how many, which.

    Args:
        corpus: its title
        missing: files, each once, or how many where nobody knows their names
        wanted: how many there should be
        root: the folder that was searched
        layout: what the folder must hold

    >>> error = missing_files("EmoDB", ["b.wav", "a.wav"], 535, root=Path("emodb"), layout="wav/")
    >>> print(error)
    EmoDB: 2 of 535 recordings are missing under emodb, such as a.wav; it must hold wav/.
    """
    if isinstance(missing, int):
        count, such = missing, ""
    else:
        names = sorted(str(name).removeprefix(f"{root}/") for name in missing)
        count, such = len(names), f", such as {names[0]}"
    are = "is" if count == 1 else "are"
    return ValueError(
        f"{corpus}: {count:,} of {wanted:,} recordings {are} missing under {root}{such}; "
        f"it must hold {layout.removesuffix(' ...')}."
    )
