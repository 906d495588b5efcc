"""A regularized linear model on statistics over time: the readout of hand-made features.

N clips, T frames of a clip, D width, V values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

INNER_FOLDS = 5
PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""Candidates for C, the inverse of the penalty."""


def summarize(clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Mean and standard deviation over time, (N, 2 D); of single frames the values alone, (N, D).

    >>> summarize([np.array([[1.0], [3.0]], np.float32)]).tolist()
    [[2.0, 1.0]]
    """
    if all(len(clip) == 1 for clip in clips):
        return np.stack([clip[0] for clip in clips])
    return np.stack([np.concatenate([clip.mean(0), clip.std(0)]) for clip in clips])


def fit_statistics(
    clips: Sequence[NDArray[np.float32]], truth: Sequence[Any], groups: Sequence[str]
) -> Any:
    """A fitted scikit-learn search: logistic regression of classes, ridge regression of values.

    Features are standardized; the penalty is chosen by cross-validation over the groups (speakers).

    Args:
        clips: (T, D) of each clip to fit on
        truth: a class, or V values, of each
        groups: who speaks in each

    Raises:
        ImportError: without scikit-learn
    """
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if isinstance(truth[0], str):
        model, penalties = LogisticRegression(max_iter=2000), {"C": [*PENALTIES]}
        answers: Any = list(truth)
    else:
        # Ridge weighs the sum of squares over clips, so its penalty grows with their number.
        model = Ridge()
        penalties = {"alpha": [0.001 * len(clips) / c for c in PENALTIES]}
        answers = np.asarray(truth)
    name = type(model).__name__.lower()
    search = GridSearchCV(
        make_pipeline(StandardScaler(), model),
        {f"{name}__{option}": values for option, values in penalties.items()},
        cv=GroupKFold(min(INNER_FOLDS, len(set(groups)))),
    )
    return search.fit(summarize(clips), answers, groups=groups)


def chosen(search: Any) -> str:
    """What the search chose, to print: "C 0.1"."""
    ((name, value),) = search.best_params_.items()
    return f"{name.rpartition('__')[2]} {value:g}"
