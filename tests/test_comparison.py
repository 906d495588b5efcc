"""Differences between two representations: intervals and p-values that mean what they say."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from emotion2vec.comparison import compare_classes, compare_values
from emotion2vec.concordance import concordance, concordance_interval, concordance_scores
from emotion2vec.metrics import (
    bootstrap_interval,
    classification_scores,
    confusion_matrix,
    recalls,
)

SCORES = ("wa", "ua", "wf1", "macro_f1")


def test_differences_are_drawn_in_pairs() -> None:
    truth, groups = [*"ab"] * 20, [i // 4 for i in range(40)]
    wrong = ["b" if label == "a" else "a" for label in truth]
    half = [*truth[:20], *wrong[20:]]
    # Where one side is always wrong, the difference is the other's score.
    found = compare_classes(truth, [wrong], [half], groups)
    assert found.interval_95 == bootstrap_interval(truth, half, groups)
    assert found.mean == 0.5
    for score in SCORES:
        assert compare_classes(truth, [half], [half], groups, score=score) == (0, (0, 0), 1)
    # Runs that differ widen the interval, though each alone has none.
    found = compare_classes(truth, [wrong] * 2, [wrong, truth], groups)
    assert found.interval_95 == (0, 1) and found.mean == 0.5
    with pytest.raises(ValueError, match="2 runs are compared with 1"):
        compare_classes(truth, [wrong] * 2, [truth], groups)


@pytest.mark.parametrize("score", SCORES)
def test_p_is_the_share_of_all_exchanges_of_speakers(score: str) -> None:
    random = np.random.default_rng(3)
    truth, first, second = random.integers(0, 3, (3, 60)).tolist()
    groups = [i % 5 for i in range(60)]

    def difference(exchanged: tuple[bool, ...]) -> float:
        pairs = [
            (b, a) if exchanged[g] else (a, b)
            for a, b, g in zip(first, second, groups, strict=True)
        ]
        sides = zip(*pairs, strict=True)
        one, other = (getattr(classification_scores(truth, side), score) for side in sides)
        return float(other - one)

    seen = difference((False,) * 5)
    all_of_them = [difference(way) for way in product([False, True], repeat=5)]
    p = np.mean([abs(value) >= abs(seen) - 1e-12 for value in all_of_them])
    found = compare_classes(truth, [first], [second], groups, score=score)
    assert found.mean == pytest.approx(seen) and found.p == pytest.approx(p)
    turned = compare_classes(truth, [second], [first], groups, score=score)
    assert turned.p == found.p and turned.mean == -found.mean


@pytest.mark.parametrize("num_speakers", [8, 24])
def test_under_the_null_small_p_values_are_as_rare_as_they_say(num_speakers: int) -> None:
    # Both sides are right as often; who is easy is a matter of the speaker, and is shared.
    random = np.random.default_rng(0)
    truth, groups = ["a"] * (6 * num_speakers), np.repeat(range(num_speakers), 6).tolist()
    found = []
    for _ in range(300):
        ease = np.repeat(random.uniform(0.2, 0.9, num_speakers), 6)
        sides = [np.where(random.random(len(ease)) < ease, "a", "b").tolist() for _ in range(2)]
        found.append(compare_classes(truth, sides[:1], sides[1:], groups, draws=200).p)
    for level in (0.05, 0.2, 0.5):
        allowed = 3 * np.sqrt(level * (1 - level) / 300)
        assert np.mean(np.array(found) <= level) <= level + allowed  # never too often
    assert np.mean(np.array(found) <= 0.2) > 0.1  # and not as if nothing could be found


def test_a_real_difference_is_found_and_few_speakers_prove_little() -> None:
    random = np.random.default_rng(1)
    truth = ["a", "b"] * 60
    wrong = {"a": "b", "b": "a"}

    def answers(accuracy: float) -> list[str]:
        return [t if random.random() < accuracy else wrong[t] for t in truth]

    first, second = [answers(0.5) for _ in range(3)], [answers(0.8) for _ in range(3)]
    found = compare_classes(truth, first, second, [i // 6 for i in range(120)])
    assert found.p < 0.01 and found.interval_95[0] > 0.1
    assert compare_classes(truth, first, second, [i // 40 for i in range(120)]).p >= 2 / 2**3


def test_recalls_are_sklearns_and_those_of_absent_classes_are_left_out() -> None:
    from sklearn.metrics import recall_score

    random = np.random.default_rng(2)
    truth, answers = random.choice(["a", "b", "c"], (2, 80)).tolist()
    found = recalls(confusion_matrix(truth, answers, ["a", "b", "c", "d"]), ["a", "b", "c", "d"])
    theirs = recall_score(truth, answers, labels=["a", "b", "c"], average=None)
    assert [*found] == ["a", "b", "c"]
    assert [*found.values()] == pytest.approx(theirs)
    assert classification_scores(truth, answers).ua == pytest.approx(np.mean([*found.values()]))


def test_ccc_is_lins_formula_with_population_variances() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(3, 2, 50), random.normal(2.5, 1, 50)
    y += 0.5 * x
    formula = 2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
    assert concordance(x, y) == pytest.approx(formula)
    # With n - 1, as torchmetrics has it, the number is another one.
    of_samples = (
        2 * np.cov(x, y)[0, 1] / (x.var(ddof=1) + y.var(ddof=1) + (x.mean() - y.mean()) ** 2)
    )
    assert abs(concordance(x, y) - of_samples) > 1e-5
    assert concordance(x, y) < np.corrcoef(x, y)[0, 1]  # shifts and scales cost something
    assert concordance(x, 2 * x.mean() - x) == pytest.approx(-1)
    assert concordance(x + 1e7, y + 1e7) == pytest.approx(formula, abs=1e-6)


@pytest.mark.parametrize(
    "truth, answers, ccc",
    [
        ([1.0, 1.0], [1.0, 1.0], 1.0),
        ([1.0, 1.0], [2.0, 2.0], 0.0),
        ([1.0, 3.0], [2.0, 2.0], 0.0),
        ([5.0], [5.0], 1.0),
    ],
)
def test_ccc_of_what_does_not_vary(truth: list[float], answers: list[float], ccc: float) -> None:
    assert concordance(truth, answers) == ccc


def test_intervals_and_differences_of_ccc_agree_with_resampling_by_hand() -> None:
    random = np.random.default_rng(4)
    truth = random.normal(size=(90, 2))
    names, groups = ["arousal", "valence"], [i % 9 for i in range(90)]
    first, second = (truth + random.normal(0, noise, truth.shape) for noise in (1.0, 0.5))
    drawn = [
        [i for g in random.integers(0, 9, 9) for i in range(90) if groups[i] == g]
        for _ in range(1500)
    ]
    scores = {
        side: [concordance_scores(truth[d], answers[d], names)["ccc_valence"] for d in drawn]
        for side, answers in (("first", first), ("second", second))
    }
    low_high = concordance_interval(truth, first, groups, names, score="ccc_valence", draws=4000)
    assert low_high == pytest.approx(np.percentile(scores["first"], [2.5, 97.5]), abs=0.015)
    found = compare_values(truth, [first], [second], groups, names, score="ccc_valence", draws=4000)
    by_hand = np.subtract(scores["second"], scores["first"])
    assert found.interval_95 == pytest.approx(np.percentile(by_hand, [2.5, 97.5]), abs=0.015)
    assert found.p == 2 / 2**9  # every speaker says the same
    same = compare_values(truth, [first] * 2, [first] * 2, groups, names)
    assert same.mean == 0 and same.p == 1 and same.interval_95 == pytest.approx((0, 0), abs=1e-9)
