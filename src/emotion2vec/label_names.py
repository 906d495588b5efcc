"""Names of labels: in which language they are shown, and which are meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def _split(label: str) -> tuple[str, str]:
    """Return the Chinese and the English name in a label; twice the label where it has no two."""
    chinese, slash, english = label.partition("/")
    return (label, label) if not slash or chinese.isascii() else (chinese, english)


LANGUAGES: dict[str, Callable[[str], str]] = {
    "en": lambda label: _split(label)[1],
    "zh": lambda label: _split(label)[0],
    "both": lambda label: label,
}
"""What is shown of a published label such as "生气/angry"."""


def shown(published: Sequence[str], language: str) -> tuple[str, ...]:
    """The names of labels in a language; whole where two would be the same.

    >>> shown(["生气/angry", "sad"], "en"), shown(["生气/angry", "愤怒/angry"], "en")
    (('angry', 'sad'), ('生气/angry', '愤怒/angry'))
    """
    names = tuple(map(LANGUAGES[language], published))
    return names if len(set(names)) == len(names) else tuple(published)


def find_labels(
    wanted: Sequence[str], published: Sequence[str], usable: Sequence[int]
) -> list[int]:
    """The positions of labels that are named as published, in English or in Chinese, in order.

    Args:
        wanted: their names
        published: all labels of a model
        usable: positions of those to choose from

    Raises:
        ValueError: for none, or one that the model does not have

    >>> find_labels(["sad", "生气"], ["生气/angry", "happy", "sad"], [0, 1, 2])
    [0, 2]
    """
    if isinstance(wanted, str):
        raise ValueError(f"labels is {wanted!r}; give a list, such as {wanted.split(',')}.")
    names: dict[str, int] = {}
    for i in usable:
        for show in LANGUAGES.values():
            names.setdefault(show(published[i]).lower(), i)
    unknown = [label for label in wanted if label.lower() not in names]
    if unknown or not wanted:
        if not usable:
            raise ValueError("labels are given, but the model answers values; leave them out.")
        known = ", ".join(LANGUAGES["en"](published[i]) for i in usable)
        raise ValueError(
            f"labels has {unknown[0]!r}, which the model does not know; it knows {known}."
            if unknown
            else f"labels is empty; choose some of {known}."
        )
    return sorted({names[label.lower()] for label in wanted})
