"""Which tasks of a cluster killed those who ran them, and which recording it was."""

from __future__ import annotations

CAREFUL_AFTER = 2
"""Deaths at one task, after which whoever runs it says before each recording that it begins it:
processes are also killed for other reasons, and to say it takes time."""


class DeathWatch:
    """Remembers who began what; an actor of Ray itself, on no processor of its own.

    >>> watch = DeathWatch()
    >>> watch.begin("task"), watch.begin("task")  # began twice: died once
    ((False, []), (False, []))
    >>> watch.begin("task")
    (True, [])
    >>> watch.reach("task", "a")
    >>> watch.begin("task")
    (True, ['a'])
    """

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}
        self._reached: dict[str, str] = {}
        self._deadly: dict[str, list[str]] = {}

    def begin(self, task: str) -> tuple[bool, list[str]]:
        """Whether to be careful with a task, and the keys of what killed somebody in it."""
        deaths = self._begun.get(task, 0)
        self._begun[task] = deaths + 1
        deadly = self._deadly.setdefault(task, [])
        if task in self._reached:
            deadly.append(self._reached.pop(task))
        return deaths >= CAREFUL_AFTER, list(deadly)

    def reach(self, task: str, key: str) -> None:
        """Note that a recording of the task is about to be computed."""
        self._reached[task] = key

    def end(self, task: str) -> None:
        """Forget a task that is done."""
        for held in (self._begun, self._reached, self._deadly):
            held.pop(task, None)
