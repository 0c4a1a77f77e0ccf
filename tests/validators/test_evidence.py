"""Neither model can touch what the other is given, and the user's model comes back as it was."""

import hashlib
import pickle
import random

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import onnxtool
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import LoadOptions
from onnxtool.opening import open_source

INPUTS = ["x:float32[batch,8]"]
X = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 4)

    def forward(self, x):
        return self.linear(x)


class Clamping(Plain):
    def forward(self, x):
        x.clamp_(0, 1)
        return self.linear(x)


class Dividing(Plain):
    def forward(self, x):
        x /= 255
        return self.linear(x)


class Restless(Plain):
    """Changes all that it has, but not what it answers."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.log, self.kind, self.cache = [], "block_sparse", {}
        self.dropout, self.norm = nn.Dropout(0.5), nn.BatchNorm1d(4)
        self.train()
        self.norm.eval()

    def forward(self, x):
        self.calls += 1
        self.log.append(x.shape[0])
        self.kind = "original_full"
        self.cache["last"] = x
        self.dropout = nn.Dropout(0.1)
        torch.rand(1)
        np.random.rand()
        random.random()  # noqa: S311
        return self.norm(self.linear(x))


def digest(module):
    """Everything of a module, and of random numbers, computed without the tool."""
    found = hashlib.sha256()
    for name, weight in module.state_dict().items():
        found.update(name.encode() + weight.numpy().tobytes())
    for name, part in module.named_modules():
        plain = {key: value for key, value in vars(part).items() if isinstance(value, int | str | list | dict)}
        plain = {key: value for key, value in plain.items() if not key.startswith("_")}
        found.update(repr((name, id(part), part.training, sorted(plain.items()))).encode())
    found.update(torch.get_rng_state().numpy().tobytes())
    found.update(repr((np.random.get_state(), random.getstate())).encode())
    return found.hexdigest()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    assert onnxtool.convert(Plain(), path, inputs=INPUTS)
    return path


@pytest.mark.parametrize("kept", ["live", "pt2"])
def test_a_source_that_works_in_place_changes_nobodys_rows(plain, tmp_path, kept):
    source = Clamping()
    if kept == "pt2":
        program = torch.export.export(
            source, (torch.zeros(3, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
        torch.export.save(program, tmp_path / "clamping.pt2")
        source = tmp_path / "clamping.pt2"
    rows = X.copy()
    options = {"inputs": INPUTS} if kept == "live" else {"sandbox": onnxtool.Limits()}
    report = onnxtool.verify(plain, source, data={"x": rows}, **options)
    assert not report
    parity = report.subjects[0].parity
    assert any("changes its input 'x' in place" in note for note in parity.notes)
    found = onnxruntime.InferenceSession(plain).run(None, {"x": X})[0]
    truth = Clamping()(torch.tensor(X)).detach().numpy()
    assert parity.outputs[0].max_absolute == pytest.approx(np.abs(found - truth).max())
    assert np.array_equal(rows, X)


def test_a_conversion_of_work_in_place_is_right(tmp_path):
    rows = X.copy()
    report = onnxtool.convert(Dividing(), tmp_path / "dividing.onnx", data={"x": rows})
    assert report, report.subjects[0].checks
    assert np.array_equal(rows, X)
    found = onnxruntime.InferenceSession(tmp_path / "dividing.onnx").run(None, {"x": X})[0]
    np.testing.assert_allclose(found, Plain()(torch.tensor(X / 255)).detach(), atol=1e-6)


def test_a_live_module_comes_back_as_it_was(tmp_path):
    module = Restless()
    before = digest(module)
    report = onnxtool.convert(module, tmp_path / "restless.onnx", inputs=INPUTS)
    assert report, report.subjects[0].checks
    assert digest(module) == before
    report = onnxtool.verify(
        tmp_path / "restless.onnx", module, inputs=INPUTS, adversarial=True, budget="1000", explain=True
    )
    assert report, report.subjects[0].checks
    assert digest(module) == before
    notes = report.subjects[0].parity.notes
    assert any("changes it (cache, calls, dropout, kind, log)" in note for note in notes)


def test_an_answer_is_no_view_of_what_the_next_run_changes():
    class Last(Plain):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x):
            self.last.copy_(self.linear(x)[-1])
            return self.last

    source = open_source(Last(), LoadOptions(inputs=(TensorSpec.parse(INPUTS[0]),)))
    first, second = (source.answer({"x": rows}) for rows in (X[:1], X[1:2]))
    np.testing.assert_array_equal(first["output"], Plain()(torch.tensor(X[:1])).detach()[0])
    assert not np.array_equal(first["output"], second["output"])


def test_an_estimator_that_works_in_place_does_so_on_a_copy(tmp_path):
    rows = X.astype(np.float64)
    model = StandardScaler(copy=False).fit(rows.copy())
    report = onnxtool.convert(model, tmp_path / "scaler.onnx", data=rows)
    assert report, report.subjects[0].checks
    assert np.array_equal(rows, X.astype(np.float64))


class Noisy(Plain):
    def __init__(self):
        super().__init__()
        self.noise = Noise()

    def forward(self, x):
        return self.noise(self.linear(x))


class Noise(nn.Module):
    def forward(self, x):
        return x + 0.1 * torch.randn_like(x)


class Dropping(Plain):
    def forward(self, x):
        return nn.functional.dropout(self.linear(x), 0.5, training=True)


class Averaging(Plain):
    """Answers with what it was asked before."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        y = self.linear(x)
        self.mean.mul_(0.9).add_(y.mean(0), alpha=0.1)
        return y - self.mean


class Switching(Plain):
    """Changes its kernel for good once a batch is small, as BigBird does for short rows."""

    def __init__(self):
        super().__init__()
        self.kind = "sparse"

    def forward(self, x):
        if x.shape[0] < 15:
            self.kind = "full"
        return self.linear(x) * (1 if self.kind == "sparse" else 2)


@pytest.mark.parametrize(
    ("kind", "source", "layer"),
    [
        ("random", Noisy, "noise (Noise)"),
        ("random", Dropping, None),
        ("stateful", Averaging, None),
        ("stateful", Switching, None),
    ],
)
def test_a_source_that_disagrees_with_itself_proves_nothing(plain, kind, source, layer):
    module = source()
    before = digest(module)
    report = onnxtool.verify(plain, module, inputs=INPUTS)
    found = report.subjects[0].parity.inconsistency
    assert (found.kind, found.layer) == (kind, layer)
    assert not report
    assert (
        report.subjects[0]
        .checks[0]
        .message.startswith(f"The source disagrees with itself, so nothing can be proved. It is {kind}")
    )
    assert "out of tolerance" not in report.subjects[0].checks[0].message
    assert digest(module) == before


def test_a_batch_that_is_one_thing_is_compared_batch_by_batch(plain, tmp_path):
    class Centred(Plain):
        def forward(self, x):
            y = self.linear(x)
            return y - y.mean(0)

    path = tmp_path / "centred.onnx"
    report = onnxtool.convert(Centred(), path, inputs=INPUTS)
    assert report, report.subjects[0].checks
    check = report.subjects[0].checks[0]
    assert report.subjects[0].parity.inconsistency.kind == "batch-dependent"
    assert "depends on the other rows of its batch" in check.message
    assert not onnxtool.verify(plain, Centred(), inputs=INPUTS)


def test_an_honest_source_is_consistent(plain):
    assert onnxtool.verify(plain, Plain(), inputs=INPUTS).subjects[0].parity.inconsistency is None


def test_hooks_are_not_put_back():
    """What looks at a module from outside adds and removes hooks of its own."""
    module = Plain()
    source = open_source(module, LoadOptions(inputs=(TensorSpec.parse(INPUTS[0]),)))
    hook = module.linear.register_forward_pre_hook(lambda *_: None)
    source.answer({"x": X})
    hook.remove()
    source.answer({"x": X})
    assert not module.linear._forward_pre_hooks
    assert not source.effects


# -- Other frameworks ----------------------------------------------------------------------------------------------


class Counting(TransformerMixin, BaseEstimator):
    """An estimator of the user's own that counts its calls, and answers what it would without."""

    def fit(self, rows, y=None):
        self.n_features_in_, self.calls_, self.log_, self.last_ = rows.shape[1], 0, [], np.zeros(1)
        return self

    def transform(self, rows):
        self.calls_ += 1
        self.log_.append(len(rows))
        self.last_[0] = rows[0, 0]
        np.random.rand()
        return rows


class Noisy(Counting):
    def transform(self, rows):
        return rows + np.random.normal(size=np.shape(rows))


class Drifting(Counting):
    def transform(self, rows):
        self.calls_ += 1
        return rows + self.calls_


def fitted(step):
    return make_pipeline(StandardScaler(), step, LogisticRegression()).fit(X, X[:, 0] > 0)


def verified(source, report_of, tmp_path, rows=X):
    """`verify` of an ONNX model that agrees, where the source has a say of its own."""
    onnxtool.convert(report_of, tmp_path / "m.onnx")
    return onnxtool.verify(tmp_path / "m.onnx", source, data=rows)


def test_an_estimator_comes_back_as_it_was(tmp_path):
    model = fitted(Counting())
    before = pickle.dumps(model), np.random.get_state()[1].tobytes()
    report = verified(model, make_pipeline(model[0], model[2]), tmp_path)
    assert report
    assert (pickle.dumps(model), np.random.get_state()[1].tobytes()) == before
    assert any("Running the source changes it (steps" in note for note in report.subjects[0].parity.notes)


@pytest.mark.parametrize(("step", "kind"), [(Noisy, "random"), (Drifting, "stateful")])
def test_an_estimator_that_disagrees_with_itself_is_no_drift(step, kind, tmp_path):
    model = fitted(step())
    report = verified(model, make_pipeline(model[0], model[2]), tmp_path)
    assert not report
    found = report.subjects[0].parity.inconsistency
    assert (found.kind, found.layer) == (kind, f"{step.__name__.lower()} ({step.__name__})")


def keras_model(layer):
    import keras

    inputs = keras.Input((8,), name="x")
    return keras.Model(inputs, keras.layers.Dense(2, kernel_initializer="ones")(layer(inputs)))


@pytest.fixture(scope="module")
def layers():
    import keras

    class Counter(keras.layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

        def call(self, x):
            self.calls.assign(self.calls + 1)
            return x

    class Adding(Counter):
        def call(self, x):
            self.calls.assign(self.calls + 1)
            return x + self.calls

    class Noise(keras.layers.Layer):
        def build(self, shape):
            self.seed = keras.random.SeedGenerator(0)

        def call(self, x):
            return x + keras.random.normal(keras.ops.shape(x), seed=self.seed)

    return {"counter": Counter, "stateful": Adding, "random": Noise}


def test_a_keras_model_comes_back_as_it_was(layers, tmp_path):
    model = keras_model(layers["counter"]())
    before = [np.asarray(weight).tobytes() for weight in model.get_weights()]
    report = verified(model, keras_model(lambda x: x), tmp_path)
    assert report
    assert [np.asarray(weight).tobytes() for weight in model.get_weights()] == before
    assert any("calls). It was put back" in note for note in report.subjects[0].parity.notes)


@pytest.mark.parametrize("kind", ["random", "stateful"])
def test_a_keras_model_that_disagrees_with_itself_is_no_drift(layers, kind, tmp_path):
    report = verified(keras_model(layers[kind]()), keras_model(lambda x: x), tmp_path)
    assert not report
    assert report.subjects[0].parity.inconsistency.kind in (kind, "stateful")


def tensorflow_model(answer):
    import tensorflow as tf

    class Net(tf.Module):
        def __init__(self):
            super().__init__()
            self.calls = tf.Variable(0.0, name="calls")

        @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, "x")])
        def __call__(self, x):
            return {"y": answer(self, x)}

    return Net()


def test_a_tensorflow_model_comes_back_as_it_was(tmp_path):
    def counting(net, x):
        net.calls.assign_add(1.0)
        return x * 2.0

    model = tensorflow_model(counting)
    report = verified(model, tensorflow_model(lambda net, x: x * 2.0), tmp_path)
    assert report
    assert float(model.calls.numpy()) == 0.0
    assert any("calls:0). It was put back" in note for note in report.subjects[0].parity.notes)


def test_a_tensorflow_model_that_draws_numbers_is_random(tmp_path):
    import tensorflow as tf

    model = tensorflow_model(lambda net, x: x + tf.random.normal(tf.shape(x)))
    report = verified(model, tensorflow_model(lambda net, x: x * 2.0), tmp_path)
    assert not report
    assert report.subjects[0].parity.inconsistency.kind == "random"
