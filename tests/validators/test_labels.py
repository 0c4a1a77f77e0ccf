import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, r2_score, roc_auc_score

from onnxtool.errors import DataError, UsageError
from onnxtool.validators.drift import labels
from onnxtool.validators.drift.labels import LabelColumns, Quality, label_drift

TRUTH = np.array(["a", "b", "a", "b"], object)


def outputs(text):
    return {"label": np.array(list(text), object)}


def test_equal_predictions_lose_nothing():
    drift = label_drift(TRUTH, "y", source=outputs("abab"), onnx=outputs("abab"), roles={"label": "label"})
    assert drift.passed
    assert {metric.name: metric.onnx for metric in drift.metrics} == {"accuracy": 1.0, "F1 (macro)": 1.0}


def test_a_lost_answer_fails_and_a_won_one_does_not():
    worse = label_drift(TRUTH, "y", source=outputs("abab"), onnx=outputs("abaa"), roles={"label": "label"})
    better = label_drift(TRUTH, "y", source=outputs("abaa"), onnx=outputs("abab"), roles={"label": "label"})
    assert not worse.passed
    assert worse.metrics[0].difference == -0.25
    assert better.passed


def test_probabilities_without_a_label_number_their_classes():
    truth = np.array([0, 1, 1])
    probabilities = {"p": np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], np.float32)}
    drift = label_drift(truth, "y", source=probabilities, onnx=probabilities, roles={"p": "probabilities"})
    assert drift.task == "classification"
    assert drift.metrics[0].source == 1.0


def test_regressors_are_scored_by_their_errors():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    good = {"prediction": np.array([[1.1], [2.0], [2.9], [4.0]], np.float32)}
    bad = {"prediction": np.array([[1.3], [2.0], [2.7], [4.0]], np.float32)}
    assert label_drift(truth, "y", source=good, onnx=good, roles={}).passed
    drift = label_drift(truth, "y", source=good, onnx=bad, roles={})
    assert not drift.passed
    assert {metric.name: metric.passed for metric in drift.metrics} == {"R²": False, "RMSE": False, "MAE": False}


def test_labels_come_from_a_column_or_a_file(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("truth\na\nb\nc\n")
    rest, auxiliary = LabelColumns("y", "y", {"y": np.array([1, 2]), "x": np.ones(2)}, "rows.csv").take(
        {"y": np.array([1, 2]), "x": np.ones(2)}, 2, ["x"]
    )
    assert list(rest) == ["x"]
    assert auxiliary["labels"].tolist() == auxiliary["groups"].tolist() == [1, 2]
    file = LabelColumns(str(path), None, {}, "rows.csv")
    assert [file.take({}, rows, [])[1]["labels"].tolist() for rows in (2, 1)] == [["a", "b"], ["c"]]
    file.finish()
    with pytest.raises(DataError, match="3 labels are left over"):
        LabelColumns(str(path), None, {}, "rows.csv").finish()
    with pytest.raises(DataError, match="neither a column"):
        LabelColumns("nope", None, {"y": np.array([1])}, "rows.csv")
    with pytest.raises(UsageError, match="--group nope: no such column"):
        LabelColumns("y", "nope", {"y": np.array([1])}, "rows.csv")


def test_what_does_not_fit_is_an_error():
    with pytest.raises(DataError, match="4 labels for 3 rows"):
        label_drift(TRUTH, "y", source=outputs("aba"), onnx=outputs("aba"), roles={"label": "label"})
    wide = {"y": np.zeros((4, 7), np.float32)}
    with pytest.raises(UsageError, match="--labels"):
        label_drift(TRUTH, "y", source=wide, onnx=wide, roles={})


def classifier(rows=600, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, rows)
    odds = rng.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[truth]
    probabilities = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True)
    return truth, {"label": probabilities.argmax(axis=1), "probabilities": probabilities}


ROLES = {"label": "label", "probabilities": "probabilities"}


@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_are_scikit_learns(classes):
    truth, source = classifier(classes=classes)
    drift = label_drift(truth, "y", source=source, onnx=source, roles=ROLES)
    shown = source["probabilities"][:, 1] if classes == 2 else source["probabilities"]
    expected = {
        "accuracy": accuracy_score(truth, source["label"]),
        "F1 (macro)": f1_score(truth, source["label"], average="macro"),
        "AUC": roc_auc_score(truth, shown, multi_class="ovr"),
        "log loss": log_loss(truth, source["probabilities"]),
    }
    assert {metric.name: metric.source for metric in drift.metrics} == pytest.approx(expected, rel=1e-5)
    assert drift.passed
    assert drift.mcnemar.p_value == 1
    assert (drift.flips.count, drift.flips.low) == (0, 0)
    assert 0 < drift.flips.high < 0.01


def test_chunks_say_what_the_whole_says():
    truth, source = classifier()
    onnx = {"label": np.roll(source["label"], 1), "probabilities": source["probabilities"] ** 2}
    onnx["probabilities"] /= onnx["probabilities"].sum(axis=1, keepdims=True)
    whole = label_drift(truth, "y", source=source, onnx=onnx, roles=ROLES)
    quality = Quality("y", ROLES)
    for start in range(0, 600, 70):
        part = slice(start, start + 70)
        quality.update(
            *({n: a[part] for n, a in outputs.items()} for outputs in (source, onnx)), {"labels": truth[part]}
        )
    parts = quality.result()
    assert [m.name for m in parts.metrics] == [m.name for m in whole.metrics]
    for first, second in zip(parts.metrics, whole.metrics, strict=True):
        assert first.difference == pytest.approx(second.difference)
        assert first.low == pytest.approx(second.low, abs=0.01)
    assert parts.mcnemar == whole.mcnemar
    assert not whole.passed


def test_the_interval_holds_the_difference():
    truth, source = classifier()
    onnx = {"label": np.where(np.arange(600) % 20 == 0, (source["label"] + 1) % 3, source["label"])}
    for metric in label_drift(truth, "y", source=source, onnx=onnx, roles={"label": "label"}).metrics:
        assert metric.low < metric.difference < metric.high
        assert metric.low > -0.2


def test_bootstrapped_f1_is_scikit_learns():
    rng = np.random.default_rng(5)
    truth, predicted = rng.integers(0, 3, (2, 40))
    draws = rng.multinomial(40, np.full(40, 1 / 40), size=5)
    expected = [
        f1_score(truth, predicted, average="macro", sample_weight=drawn, zero_division=0) for drawn in draws
    ]
    assert labels._f1(draws, truth, predicted) == pytest.approx(expected)


def test_regression_intervals_hold_the_difference():
    rng = np.random.default_rng(6)
    truth = rng.normal(1000, 3, 5000)
    source = {"prediction": (truth + rng.normal(0, 1, 5000))[:, None]}
    onnx = {"prediction": source["prediction"] + rng.normal(0, 0.3, (5000, 1))}
    drift = label_drift(truth, "y", source=source, onnx=onnx, roles={})
    for metric in drift.metrics:
        assert metric.low < metric.difference < metric.high
        assert 0 not in (metric.low, metric.high)
        assert not metric.passed
    assert drift.metrics[0].source == pytest.approx(r2_score(truth, source["prediction"]))


def test_no_group_pays_for_the_average():
    truth, source = classifier(rows=20_000, classes=2)
    group = np.where(np.arange(20_000) % 100 == 0, "few", "many").astype(object)
    few = np.flatnonzero((group == "few") & (source["label"] == truth))[:15]
    onnx = {"label": source["label"].copy()}
    onnx["label"][few] = 1 - onnx["label"][few]
    quality = Quality("y", {"label": "label"}, "region")
    quality.update(source, onnx, {"labels": truth, "groups": group})
    drift = quality.result()
    assert all(metric.passed for metric in drift.metrics)  # 15 of 20,000 are within the allowance of the whole
    assert {entry.group: (entry.rows, entry.passed) for entry in drift.groups} == {
        "few": (200, False),
        "many": (19_800, True),
    }
    assert not drift.passed
    assert drift.groups[0].metrics[0].difference == pytest.approx(-15 / 200)


def test_one_answer_in_a_small_group_is_no_evidence():
    truth, source = classifier(rows=2000, classes=2)
    group = np.where(np.arange(2000) < 20, "few", "many").astype(object)
    onnx = {"label": source["label"].copy()}
    onnx["label"][np.flatnonzero(source["label"][:20] == truth[:20])[0]] ^= 1
    quality = Quality("y", {"label": "label"}, "region")
    quality.update(source, onnx, {"labels": truth, "groups": group})
    assert quality.result().passed


def test_groups_of_numbers_have_their_errors():
    truth = np.arange(100.0)
    source = {"prediction": truth[:, None] + 1}
    onnx = {"prediction": source["prediction"] + np.where(np.arange(100) < 10, 0.5, 0)[:, None]}
    quality = Quality("y", {}, "site")
    quality.update(source, onnx, {"labels": truth, "groups": (np.arange(100) >= 10).astype(np.int64)})
    drift = quality.result()
    assert {entry.group: entry.metrics[0].difference for entry in drift.groups} == {
        "0": pytest.approx(0.5),
        "1": pytest.approx(0),
    }


def test_a_number_is_no_group():
    truth, source = classifier()
    with pytest.raises(UsageError, match="--group income: more than"):
        Quality("y", ROLES, "income").update(source, source, {"labels": truth, "groups": np.arange(600) / 7})


def test_only_a_sample_of_many_rows_is_kept(monkeypatch):
    monkeypatch.setattr(labels, "BUFFERED", 3000)
    truth, source = classifier(rows=8000)
    quality = Quality("y", ROLES)
    for start in range(0, 8000, 1000):
        part = {name: array[start : start + 1000] for name, array in source.items()}
        quality.update(part, part, {"labels": truth[start : start + 1000]})
    drift = quality.result()
    assert any("1,000 rows drawn at random" in note for note in drift.notes)
    scores = {metric.name: metric.source for metric in drift.metrics}
    assert scores["accuracy"] == accuracy_score(truth, source["label"])
    assert scores["AUC"] == pytest.approx(
        roc_auc_score(truth, source["probabilities"], multi_class="ovr"), abs=0.03
    )


@pytest.mark.parametrize("truth", [[1.0, 0.0, 1.0], [True, False, True], np.array(["1", "0", "1"], object)])
def test_a_class_is_the_same_in_every_dtype(truth):
    answers = {"label": np.array([1, 0, 1])}
    drift = label_drift(np.asarray(truth), "y", source=answers, onnx=answers, roles={"label": "label"})
    assert drift.metrics[0].source == 1


def test_what_cannot_be_scored_is_reported():
    truth, source = classifier(classes=3)
    seen = truth < 2
    part = {name: array[seen] for name, array in source.items()}
    drift = label_drift(truth[seen], "y", source=part, onnx=part, roles=ROLES)
    assert [metric.name for metric in drift.metrics] == ["accuracy", "F1 (macro)"]
    assert "not every class" in drift.notes[0]


def test_probabilities_rounded_past_1_are_scored():
    truth = np.array([0, 1, 0, 1])
    source = {"p": np.array([[1.0, 0.0], [0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])}
    rounded = {"p": source["p"].astype(np.float32) + np.array([[4e-7, 0]], np.float32)}
    drift = label_drift(truth, "y", source=source, onnx=rounded, roles={"p": "probabilities"})
    assert "log loss" in {metric.name for metric in drift.metrics}
    assert drift.passed
