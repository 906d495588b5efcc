"""Corpora of one's own: a list, or folders named after the emotions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from emotion2vec.manifest import Record, find_recordings, read_manifest

SPLITS = ("train", "valid", "test")


def read_own(source: str | Path) -> list[Record]:
    """The recordings of a list or a folder, with their labels.

    A list is read as `emotion2vec.manifest.read_manifest` does. In a folder, each recording lies in
    one named after its emotion: `happy/a.wav`. A folder inside that one is the speaker:
    `happy/anna/a.wav`. Above it there may be `train`, `valid` and `test`.

    Raises:
        FileNotFoundError: if there is nothing
        ValueError: if a list is broken, or recordings have no label (they are counted)

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "test" / "happy" / "anna").mkdir(parents=True)
    >>> (root / "test" / "happy" / "anna" / "a.wav").touch()
    >>> record = read_own(root)[0]
    >>> record.emotion, record.speaker, record.labels["split"]
    ('happy', 'anna', 'test')
    """
    source = Path(source)
    if source.is_dir():
        records = [_by_folders(record) for record in find_recordings(source)]
        cure = f"put it into a folder named after its emotion, such as {source}/happy/"
    else:
        records = read_manifest(source)
        cure = "add a field or column such as 'emotion'"
    without = [record.key for record in records if not record.labels]
    if without:
        raise ValueError(
            f"{source}: {len(without):,} of {len(records):,} recordings have no label, such as "
            f"{without[0]}; {cure}."
        )
    return records


def _by_folders(record: Record) -> Record:
    *folders, _ = record.key.split("/")
    split = {"split": folders.pop(0)} if folders and folders[0] in SPLITS else {}
    if not folders:
        return record
    speaker = folders[1] if len(folders) > 1 else None
    return replace(record, labels={"emotion": folders[0], **split}, speaker=speaker)
