"""Calibration: against scikit-learn and scipy where they have it, and by what must hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.calibration import calibration_curve

from emotion2vec.calibration import expected_calibration_error, fit_temperature, softmax


@pytest.fixture
def sure() -> tuple[np.ndarray, np.ndarray]:
    """Logits that are three times as sure as they should be, and the truth."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(4000, 5))
    chances = softmax(logits)
    truth = np.array([random.choice(5, p=row) for row in chances])
    return 3 * logits, truth


def test_the_temperature_is_what_scipy_finds(sure: tuple[np.ndarray, np.ndarray]) -> None:
    logits, truth = sure
    found = fit_temperature(logits, truth)
    best = minimize_scalar(
        lambda t: -log_softmax(logits / t, axis=1)[np.arange(len(truth)), truth].mean(),
        bounds=(0.05, 20),
        method="bounded",
    )
    assert found == pytest.approx(best.x, rel=1e-3)
    assert found == pytest.approx(3, rel=0.1)


def test_the_error_is_that_of_the_bins(sure: tuple[np.ndarray, np.ndarray]) -> None:
    logits, truth = sure
    scores = softmax(logits)
    confidence, right = scores.max(axis=1), scores.argmax(axis=1) == truth
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    counts, _ = np.histogram(confidence, bins=15, range=(0, 1))
    expected = (np.abs(accuracy - mean) * counts[counts > 0]).sum() / len(truth)
    assert expected_calibration_error(scores, truth) == pytest.approx(expected, abs=1e-6)


def test_a_temperature_mends_it_and_changes_no_answer(
    sure: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, truth = sure
    tempered = softmax(logits, fit_temperature(logits, truth))
    before = expected_calibration_error(softmax(logits), truth)
    assert expected_calibration_error(tempered, truth) < 0.03 < 0.15 < before
    assert (tempered.argmax(axis=1) == logits.argmax(axis=1)).all()


def test_edges() -> None:
    assert expected_calibration_error([[1.0, 0.0]], [0]) == 0
    assert expected_calibration_error([[1.0, 0.0]], [1]) == 1
    assert fit_temperature([[9.0, 0.0]] * 3, [0, 0, 0]) < 0.1  # always right: as sure as may be
    assert fit_temperature([[9.0, 0.0]] * 3, [1, 1, 1]) > 19  # always wrong: knows nothing
    for function in (expected_calibration_error, fit_temperature):
        with pytest.raises(ValueError, match="there is no clip"):
            function(np.zeros((0, 2)), [])
