import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from onnxtool.validators.drift.significance import (
    auc_influence,
    bootstrap,
    clopper_pearson,
    mcnemar,
    paired_accuracy,
    paired_mean,
)


def test_clopper_pearson_is_the_published_interval():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263, and none of 20.
    assert clopper_pearson(81, 263)[:2] == pytest.approx((0.2527, 0.3676), abs=1e-4)
    assert clopper_pearson(0, 20)[:2] == pytest.approx((0.0, 0.1684), abs=1e-4)
    assert clopper_pearson(20, 20).low == pytest.approx(0.8316, abs=1e-4)


@given(st.integers(1, 300), st.data())
def test_clopper_pearson_holds_the_share_and_narrows_with_rows(total, data):
    count = data.draw(st.integers(0, total))
    low, high, _ = clopper_pearson(count, total)
    assert 0 <= low <= count / total <= high <= 1
    wider = clopper_pearson(count, total, 0.999)
    assert wider.low <= low
    assert high <= wider.high


def test_mcnemar_is_the_exact_binomial_test():
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(1, 9) == pytest.approx(2 * 11 / 2**10)
    assert mcnemar(5, 5) == 1


def test_no_row_lost_is_no_certainty():
    low, high, _ = paired_accuracy(0, 0, 100)
    assert low == -high
    assert 0.03 < high < 0.06


@settings(max_examples=20)
@given(st.integers(0, 5), st.integers(0, 5))
def test_paired_accuracy_covers_the_truth(lost, won):
    """By simulation: the true difference lies within the interval in at least 95 % of samples."""
    rng = np.random.default_rng(lost * 10 + won)
    share = np.array([lost, won, 50 - lost - won]) / 50
    drawn = rng.multinomial(80, share, size=300)
    inside = [
        interval.low <= share[1] - share[0] <= interval.high
        for interval in (paired_accuracy(int(row[0]), int(row[1]), 80) for row in drawn)
    ]
    assert np.mean(inside) >= 0.95


def test_the_bootstrap_of_a_mean_is_the_textbook_interval():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high, _ = bootstrap(np.ones(400, np.int64), lambda drawn: drawn @ values / 400)
    exact = paired_mean(values, values.mean(), "t")
    assert low == pytest.approx(exact.low, abs=0.03)
    assert high == pytest.approx(exact.high, abs=0.03)


def test_a_paired_mean_covers_the_truth():
    rng = np.random.default_rng(2)
    inside = [
        interval.low <= 0 <= interval.high
        for interval in (paired_mean(v, v.mean(), "t") for v in rng.normal(0, 1, (2000, 12)))
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    assert paired_mean(np.ones(1), 1.0, "t").high == np.inf


@settings(max_examples=30)
@given(st.integers(2, 4), st.integers(0, 1000))
def test_auc_influence_gives_the_area_of_scikit_learn(classes, seed):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), np.arange(classes), rng.integers(0, classes, 60)])
    scores = np.round(rng.random((len(truth), classes)), 1) + 0.3 * np.eye(classes)[truth]  # with ties
    scores /= scores.sum(axis=1, keepdims=True)
    influence = auc_influence(truth, scores)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    # A row counted once more changes the area by its influence over the rows, to first order.
    shown = scores[:, 1] if classes == 2 else scores
    area = roc_auc_score(truth, shown, multi_class="ovr")
    weight = np.ones(len(truth))
    weight[3] += 1e-4
    if classes == 2:
        moved = roc_auc_score(truth, shown, sample_weight=weight)
        assert (moved - area) / 1e-4 * len(truth) == pytest.approx(influence[3], abs=1e-3)


def test_delong_covers_the_difference_of_two_models():
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(300):
        truth = rng.integers(0, 2, 150)
        signal = truth + rng.normal(0, 1, 150)
        first, second = (np.stack([-s, s], axis=1) for s in (signal, signal + rng.normal(0, 0.5, 150)))
        areas = [roc_auc_score(truth, s[:, 1]) for s in (first, second)]
        difference = auc_influence(truth, second) - auc_influence(truth, first)
        interval = paired_mean(difference, areas[1] - areas[0], "DeLong")
        inside.append(interval.low <= TRUE_LOSS <= interval.high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.035)


def _true_loss():
    """Both are normal with equal variances, so that the area is Phi(1 / (sigma * sqrt(2)))."""
    from scipy.stats import norm

    return norm.cdf(1 / np.sqrt(2 * 1.25)) - norm.cdf(1 / np.sqrt(2))


TRUE_LOSS = _true_loss()
