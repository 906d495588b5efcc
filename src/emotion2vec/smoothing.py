"""Labels over time from scores over time, decided as they come: a hidden Markov model, fixed lag.

T hops, C classes.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FixedLagSmoother:
    """One class for each hop, decided when `lag` later hops are known, or the end.

    Emotions are states that last: a class is kept from hop to hop but for a probability `switch`,
    which goes evenly to the others. A hop's class is the most probable one, given all hops up to
    `lag` after it (forward-backward, Rabiner 1989, cut at the lag).

    Args:
        switch: probability that the next hop has another class, in (0, 1)
        lag: hops to look ahead, from 0

    >>> smoother = FixedLagSmoother(switch=0.1, lag=1)
    >>> rows = np.array([[0.9, 0.1], [0.4, 0.6], [0.9, 0.1]])
    >>> [smoother.push(row) for row in rows], smoother.finish()
    ([None, 0, 0], [0])
    """

    def __init__(self, *, switch: float, lag: int) -> None:
        self.switch, self.lag = switch, lag
        self._forward: NDArray[np.float64] | None = None
        self._waiting: deque[tuple[NDArray[np.float64], NDArray[np.float64]]] = deque()

    def push(self, scores: NDArray[Any]) -> int | None:
        """The class of the hop `lag` before this one; None where there is no such hop yet.

        Args:
            scores: (C,), probabilities of the classes in the next hop
        """
        # Not under a floor: a class that is once held impossible would be so for ever.
        evidence = np.maximum(np.asarray(scores, np.float64), 1e-6)
        forward = evidence if self._forward is None else evidence * self._step(self._forward)
        self._forward = forward / forward.sum()
        self._waiting.append((self._forward, evidence))
        return self._decide() if len(self._waiting) > self.lag else None

    def finish(self) -> list[int]:
        """The classes of the hops that are left; the next hop begins anew."""
        found = []
        while self._waiting:
            found.append(self._decide())
        self._forward = None
        return found

    def _decide(self) -> int:
        forward, _ = self._waiting.popleft()
        backward = np.ones_like(forward)
        for _, evidence in reversed(self._waiting):
            backward = self._step(evidence * backward)
            backward /= backward.sum()
        return int((forward * backward).argmax())

    def _step(self, belief: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is believed of the hop beside, either way: the transitions are symmetric."""
        if len(belief) == 1:
            return belief
        other = self.switch / (len(belief) - 1)
        return (1 - self.switch - other) * belief + other * belief.sum()
