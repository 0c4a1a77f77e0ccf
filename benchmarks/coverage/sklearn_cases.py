"""For each estimator of scikit-learn a small fitted model, and rows that it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxtool.errors import require

KINDS = ("float32", "float64", "frame")
TEXT = "text"
TRAINING, HELD_OUT = 180, 120


class NoRowsError(Exception):
    """The estimator has no prediction for new rows of a table."""


@dataclass(frozen=True, slots=True)
class Case:
    """A fitted model and its held-out rows.

    Attributes:
        name: The estimator's class.
        kind: The kind of input.
        model: Fitted.
        rows: What the model has not seen: a matrix, a data frame or a list of texts.
        inputs: The signature as a user would give it; empty where the model has its own.
    """

    name: str
    kind: str
    model: Any
    rows: Any
    inputs: tuple[str, ...] = ()


def estimators() -> dict[str, Any]:
    """Every estimator of scikit-learn by name, the experimental ones too."""
    require("sklearn.experimental.enable_halving_search_cv", "sklearn")
    return dict(require("sklearn.utils", "sklearn").all_estimators())


def make(name: str, kind: str) -> Case:
    """Fit an estimator on one kind of input.

    Raises:
        NoRowsError: it predicts and transforms nothing new.
    """
    if name in OTHERS:
        raise NoRowsError(OTHERS[name])
    estimator = _estimator(name, estimators()[name])
    if name in DICTIONARIES:
        return Case(name, kind, estimator.fit([{"a": 1.0, "b": 2.0}, {"a": 3.0}]), None)
    if kind == TEXT:
        texts = _texts()
        return Case(name, kind, estimator.fit(texts[:TRAINING]), np.array(texts[TRAINING:], dtype=object))
    matrix, target = _matrix(name), _target(name)
    if kind == "frame":
        return _on_frame(name, estimator, matrix, target)
    rows = matrix.astype(kind)
    if name == "KernelCenterer":
        rows = (rows @ rows[:TRAINING].T).astype(kind)
    estimator.fit(rows[:TRAINING], target[:TRAINING])
    _refuse_without_rows(estimator)
    return Case(name, kind, estimator, rows[TRAINING:], (f"X:{kind}[batch,{rows.shape[1]}]",))


DICTIONARIES = frozenset({"DictVectorizer", "FeatureHasher"})
READERS = frozenset({"CountVectorizer", "HashingVectorizer", "TfidfVectorizer"})
"""What reads text."""

OTHERS = {
    "LabelEncoder": "It transforms targets, not rows.",
    "LabelBinarizer": "It transforms targets, not rows.",
    "MultiLabelBinarizer": "It transforms targets, not rows.",
    "PatchExtractor": "It cuts images into patches, and gives another number of rows.",
}
"""Estimators that take no rows of a table."""


def _refuse_without_rows(model: Any) -> None:
    if not any(hasattr(model, name) for name in ("predict", "transform", "decision_function", "predict_proba")):
        raise NoRowsError("It has neither predict nor transform for new rows.")


def _on_frame(name: str, estimator: Any, matrix: NDArray[Any], target: NDArray[Any]) -> Case:
    """Numbers as they are or scaled, and text one-hot; encoders see the text alone."""
    frames = require("pandas", "sklearn")
    compose = require("sklearn.compose", "sklearn")
    preprocessing = require("sklearn.preprocessing", "sklearn")
    pipeline = require("sklearn.pipeline", "sklearn")
    numbers = [f"n{place}" for place in range(matrix.shape[1])]
    frame = frames.DataFrame(matrix.astype(np.float32), columns=numbers)
    words = np.random.default_rng(3).choice(["red", "green", "blue"], len(matrix))
    frame["colour"] = np.asarray(words, dtype=object)
    if name == "IsotonicRegression":
        raise NoRowsError("It takes one column.")
    if name in ("SparseCoder", "FrozenEstimator"):
        raise NoRowsError("It is made for a matrix of its own width.")
    if name == "KernelCenterer":
        raise NoRowsError("It takes a kernel between the rows and those of its training.")
    if name == "ColumnTransformer":
        model = estimator
    elif name in ENCODERS:
        model = compose.ColumnTransformer([("numbers", "passthrough", numbers), ("words", estimator, ["colour"])])
    else:
        kept = "passthrough" if name in POSITIVE or name in MISSING else preprocessing.MinMaxScaler()
        model = pipeline.make_pipeline(
            compose.ColumnTransformer(
                [
                    ("numbers", kept, numbers),
                    ("words", preprocessing.OneHotEncoder(sparse_output=False), ["colour"]),
                ]
            ),
            estimator,
        )
    model.fit(frame[:TRAINING], target[:TRAINING])
    if model is not estimator:
        _refuse_without_rows(estimator)
    return Case(name, "frame", model, frame[TRAINING:])


ENCODERS = frozenset({"OneHotEncoder", "OrdinalEncoder", "TargetEncoder"})
POSITIVE = frozenset(
    {
        "AdditiveChi2Sampler", "CategoricalNB", "ComplementNB", "LatentDirichletAllocation", "MiniBatchNMF",
        "MultinomialNB", "NMF", "SkewedChi2Sampler",
    }
)  # fmt: skip
MISSING = frozenset({"SimpleImputer", "KNNImputer", "IterativeImputer", "MissingIndicator"})
SEVERAL = frozenset(
    {
        "CCA", "PLSCanonical", "PLSSVD", "MultiTaskElasticNet", "MultiTaskElasticNetCV", "MultiTaskLasso",
        "MultiTaskLassoCV", "MultiOutputRegressor", "RegressorChain",
    }
)  # fmt: skip
SEVERAL_LABELS = frozenset({"MultiOutputClassifier", "ClassifierChain"})
TWO_CLASSES = frozenset({"FixedThresholdClassifier", "TunedThresholdClassifierCV"})


def _matrix(name: str) -> NDArray[Any]:
    random = np.random.default_rng(0)
    count = TRAINING + HELD_OUT
    rows = random.normal(size=(count, 6)) + 2.5 * random.integers(0, 3, (count, 1)) * np.array(
        [1, -1, 0.5, 0, 0, 0]
    )
    if name in POSITIVE:
        rows = np.abs(rows) + 0.1
    if name in ENCODERS or name == "CategoricalNB":
        rows = random.integers(0, 4, (count, 3)).astype(float)
        rows[:TRAINING][:4] = np.arange(4)[:, np.newaxis]
    if name in MISSING:
        rows[random.random(rows.shape) < 0.1] = np.nan
    return np.asarray(rows[:, :1] if name == "IsotonicRegression" else rows)


def _target(name: str) -> Any:
    """Three classes, two where there must be, or numbers."""
    kind = estimators()[name]
    base = require("sklearn.base", "sklearn")
    rows = np.nan_to_num(_matrix(name))
    signal = rows[:, 0] + 0.3 * np.random.default_rng(1).normal(size=len(rows))
    classes = np.digitize(signal, np.quantile(signal, [1 / 3, 2 / 3]))
    if name in SEVERAL_LABELS:
        return np.stack([classes > 0, classes > 1], axis=1).astype(int)
    if name in SEVERAL:
        return np.stack([signal, signal**2 + rows[:, -1]], axis=1)
    if name in TWO_CLASSES:
        return (classes > 0).astype(int)
    if issubclass(kind, base.ClassifierMixin) or name in ("SelfTrainingClassifier", "LinearDiscriminantAnalysis"):
        return classes
    if name in ("PoissonRegressor", "GammaRegressor", "TweedieRegressor"):
        return np.exp(0.2 * signal)
    if issubclass(kind, base.RegressorMixin):
        return signal
    return classes


def _texts() -> list[str]:
    words = ["apple", "pear", "Cherry", "plum", "tree", "house", "river", "Stone", "walks", "runs", "the", "a1"]
    random = np.random.default_rng(2)
    return [" ".join(random.choice(words, random.integers(3, 12))) for _ in range(TRAINING + HELD_OUT)]


def _logistic() -> Any:
    return require("sklearn.linear_model", "sklearn").LogisticRegression()


def _ridge() -> Any:
    return require("sklearn.linear_model", "sklearn").Ridge()


def _scaler() -> Any:
    return require("sklearn.preprocessing", "sklearn").StandardScaler()


def _frozen(kind: Any) -> Any:
    rows = _matrix("FrozenEstimator")
    return kind(_logistic().fit(rows, _target("LogisticRegression")))


MADE: dict[str, Callable[[Any], Any]] = {
    "ColumnTransformer": lambda kind: kind([("first", _scaler(), [0, 1]), ("rest", "passthrough", [2, 3])]),
    "FeatureUnion": lambda kind: kind(
        [("a", _scaler()), ("b", require("sklearn.decomposition", "sklearn").PCA(2))]
    ),
    "Pipeline": lambda kind: kind([("scale", _scaler()), ("model", _logistic())]),
    "StackingClassifier": lambda kind: kind(
        [("a", _logistic()), ("b", require("sklearn.naive_bayes", "sklearn").GaussianNB())]
    ),
    "StackingRegressor": lambda kind: kind(
        [("a", _ridge()), ("b", require("sklearn.svm", "sklearn").LinearSVR())]
    ),
    "VotingClassifier": lambda kind: kind(
        [("a", _logistic()), ("b", require("sklearn.naive_bayes", "sklearn").GaussianNB())], voting="soft"
    ),
    "VotingRegressor": lambda kind: kind([("a", _ridge()), ("b", require("sklearn.svm", "sklearn").LinearSVR())]),
    "GridSearchCV": lambda kind: kind(_logistic(), {"C": [0.1, 1.0]}, cv=2),
    "HalvingGridSearchCV": lambda kind: kind(_logistic(), {"C": [0.1, 1.0]}, cv=2),
    "RandomizedSearchCV": lambda kind: kind(_logistic(), {"C": [0.1, 1.0]}, n_iter=2, cv=2),
    "HalvingRandomSearchCV": lambda kind: kind(_logistic(), {"C": [0.1, 1.0]}, cv=2),
    "FrozenEstimator": _frozen,
    "SparseCoder": lambda kind: kind(
        np.random.default_rng(4).normal(size=(4, 6)), transform_algorithm="threshold"
    ),
    "RegressorChain": lambda kind: kind(_ridge()),
    "MultiOutputRegressor": lambda kind: kind(_ridge()),
    "CategoricalNB": lambda kind: kind(min_categories=8),
    "OneHotEncoder": lambda kind: kind(handle_unknown="ignore"),
    "OrdinalEncoder": lambda kind: kind(handle_unknown="use_encoded_value", unknown_value=-1),
    "TransformedTargetRegressor": lambda kind: kind(_ridge()),
    "PatchExtractor": lambda kind: kind(),
    "SequentialFeatureSelector": lambda kind: kind(_logistic(), n_features_to_select=2, cv=2),
    "HashingVectorizer": lambda kind: kind(n_features=64),
    "LocalOutlierFactor": lambda kind: kind(novelty=True),
    "KernelCenterer": lambda kind: kind(),
    "LinearDiscriminantAnalysis": lambda kind: kind(),
    "QuadraticDiscriminantAnalysis": lambda kind: kind(reg_param=0.1),
    "IsotonicRegression": lambda kind: kind(out_of_bounds="clip"),
    "RadiusNeighborsClassifier": lambda kind: kind(radius=20.0),
    "RadiusNeighborsRegressor": lambda kind: kind(radius=3.0),
    "RadiusNeighborsTransformer": lambda kind: kind(radius=3.0),
    "RANSACRegressor": lambda kind: kind(_ridge(), min_samples=20, random_state=0),
    "SelfTrainingClassifier": lambda kind: kind(_logistic()),
    "KNNImputer": lambda kind: kind(n_neighbors=3),
}
"""How what needs arguments is made."""

SMALL: dict[str, Any] = {
    "random_state": 0, "n_estimators": 10, "max_iter": None, "n_components": 3, "n_clusters": 3, "cv": 2,
}  # fmt: skip
"""Arguments that keep a model small and the same in every run, where an estimator takes them."""


def _estimator(name: str, kind: Any) -> Any:
    if name in MADE:
        return MADE[name](kind)
    needed = getattr(kind, "_required_parameters", ()) or _required(kind)
    classifies = issubclass(kind, require("sklearn.base", "sklearn").ClassifierMixin)
    selects = hasattr(kind, "get_support")
    made = kind(**{needed[0]: _logistic() if classifies or selects else _ridge()}) if needed else kind()
    known = made.get_params(deep=False)
    if name in ("CCA", "PLSCanonical", "PLSSVD"):
        return made.set_params(n_components=2)
    chosen = {key: value for key, value in SMALL.items() if key in known and value is not None}
    return made.set_params(**chosen)


def _required(kind: Any) -> list[str]:
    inspect = require("inspect", "sklearn")
    parameters = inspect.signature(kind.__init__).parameters.values()
    plain = [one for one in parameters if one.kind == one.POSITIONAL_OR_KEYWORD and one.name != "self"]
    return [one.name for one in plain if one.default is one.empty]
