"""The loss of a model in lower precision."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given

from onnxtool.validators.drift.fidelity import ERROR, FLIPS, Fidelity
from onnxtool.validators.drift.labels import Quality

COLUMN = hnp.arrays(np.float32, st.tuples(st.integers(2, 40), st.just(3)), elements=st.floats(-100, 100, width=32))


def compared(truth, found, roles=None, **options):
    fidelity = Fidelity(roles or {}, **options)
    half = len(next(iter(truth.values()))) // 2
    for part in (slice(None, half), slice(half, None)):
        fidelity.update(*({name: array[part] for name, array in side.items()} for side in (truth, found)), {})
    return fidelity


@given(COLUMN, st.floats(0.001, 1))
def test_the_error_is_what_r_squared_leaves(truth, size):
    """error = sqrt(1 - R²) of the source by the model, whatever the chunks."""
    assume(truth.std() > 1e-3)
    found = truth + np.float32(size) * np.sin(truth)
    expected = np.sqrt(((found.astype(float) - truth) ** 2).mean() / truth.astype(float).var())
    assert compared({"y": truth}, {"y": found}).error() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_an_offset_of_all_outputs_hides_no_error():
    truth = np.linspace(0, 1, 50, dtype=np.float64)[:, None]
    errors = [compared({"y": truth + offset}, {"y": truth * 1.1 + offset}).error() for offset in (0, 1000)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-6)


def test_what_is_not_finite_fails():
    truth = np.arange(12, dtype=np.float32).reshape(6, 2)
    for value in (np.nan, np.inf):
        found = truth.copy()
        found[4, 1] = value
        fidelity = compared({"y": truth}, {"y": found})
        assert fidelity.error() == np.inf
        assert [loss.passed for loss in fidelity.losses(None)] == [False]


def test_a_nan_is_no_first_class():
    truth = np.tile(np.float32([0.9, 0.1]), (10, 1))
    found = np.full_like(truth, np.nan)
    (flips,) = compared({"p": truth}, {"p": found}, {"p": "probabilities"}).losses(None)
    assert flips.value == 1
    assert not flips.passed


@pytest.mark.parametrize(("flipped", "passed"), [(0, True), (10, True), (11, False)])
def test_labels_may_flip_in_a_hundredth_of_the_rows(flipped, passed):
    truth = np.arange(1000) % 7
    found = truth.copy()
    found[:flipped] += 1
    (loss,) = compared({"label": truth}, {"label": found}, {"label": "label"}).losses(None)
    assert (loss.value, loss.allowed, loss.passed) == (flipped / 1000, FLIPS, passed)
    assert loss.high > loss.value


def test_the_users_allowance_counts_for_all():
    truth = np.linspace(0, 1, 100)[:, None]
    (loss,) = compared({"y": truth}, {"y": truth * 1.02}).losses(None)
    assert loss.passed
    assert loss.allowed == ERROR
    (loss,) = compared({"y": truth}, {"y": truth * 1.02}, allowed=0.01).losses(None)
    assert not loss.passed


def quality(rows, lost):
    """A source that is right on every row, and a model that is wrong on some."""
    labels = np.arange(rows) % 2
    found = labels.copy()
    found[:lost] = 1 - found[:lost]
    fidelity = Fidelity({"label": "label"}, quality=Quality("y", {"label": "label"}))
    fidelity.update({"label": labels}, {"label": found}, {"labels": labels})
    drift = fidelity.drift()
    return drift, {loss.measure: loss for loss in fidelity.losses(drift)}


def test_quality_is_compared_by_the_far_end_of_its_interval():
    drift, losses = quality(4000, 10)
    accuracy = losses["loss of accuracy"]
    assert accuracy.value == pytest.approx(10 / 4000)
    assert accuracy.value < accuracy.high < 0.01
    assert accuracy.passed
    assert drift.passed
    # As large a loss on few rows may be a larger one on others.
    drift, losses = quality(400, 1)
    assert losses["loss of accuracy"].value == pytest.approx(1 / 400)
    assert not losses["loss of accuracy"].passed
    assert not drift.passed


def test_an_error_may_grow_by_a_share_of_itself():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=(3000, 1))
    truth = labels + 0.1 * rng.normal(size=labels.shape)
    for noise, passed in ((1e-4, True), (0.05, False)):
        fidelity = Fidelity({}, quality=Quality("y", {}))
        found = truth + noise * rng.normal(size=truth.shape)
        fidelity.update({"y": truth}, {"y": found}, {"labels": labels[:, 0]})
        losses = {loss.measure: loss for loss in fidelity.losses(fidelity.drift())}
        assert {"growth of RMSE", "growth of MAE"} < losses.keys()
        assert losses["growth of RMSE"].allowed == pytest.approx(0.01)
        assert losses["growth of RMSE"].passed is passed
