"""Model folders that MLflow itself wrote, and hostile ones."""

import joblib
import keras
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import onnxtool
from onnxtool.errors import SourceError, UntrustedError
from onnxtool.models.mlflow_folder import model_in

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own

X = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
SAVED = {"pip_requirements": ["onnxtool"]}


def _sklearn(folder):
    import mlflow.sklearn

    mlflow.sklearn.save_model(LogisticRegression().fit(X, Y), folder, **SAVED)


def _sklearn_pickle(folder):
    import mlflow.sklearn

    mlflow.sklearn.save_model(LogisticRegression().fit(X, Y), folder, serialization_format="cloudpickle", **SAVED)


def _xgboost(folder):
    import mlflow.xgboost
    import xgboost

    mlflow.xgboost.save_model(xgboost.XGBClassifier(n_estimators=3).fit(X, Y), folder, **SAVED)


def _catboost(folder):
    import catboost
    import mlflow.catboost

    model = catboost.CatBoostClassifier(iterations=3, verbose=0, allow_writing_files=False).fit(X, Y)
    mlflow.catboost.save_model(model, folder, **SAVED)


def _pytorch(folder):
    import mlflow.pytorch

    mlflow.pytorch.save_model(torch.nn.Sequential(torch.nn.Linear(4, 3)), folder, input_example=X, **SAVED)


def _keras(folder):
    import mlflow.tensorflow

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    mlflow.tensorflow.save_model(model, folder, **SAVED)


def _onnx(folder):
    import mlflow.onnx
    import onnx

    onnxtool.convert(LogisticRegression().fit(X, Y), folder.parent / "inner.onnx", data=X)
    mlflow.onnx.save_model(onnx.load(folder.parent / "inner.onnx"), folder, **SAVED)


@pytest.mark.parametrize("save", [_sklearn, _sklearn_pickle, _xgboost, _catboost, _pytorch, _keras])
def test_a_model_of_mlflow_converts(tmp_path, save):
    save(tmp_path / "model")
    report = onnxtool.convert(str(tmp_path / "model"), tmp_path / "model.onnx", data=X)
    assert report
    assert report.subjects[0].source.path.startswith(str(tmp_path / "model"))


def test_an_onnx_model_of_mlflow_is_a_source(tmp_path):
    _onnx(tmp_path / "model")
    assert onnxtool.verify(tmp_path / "inner.onnx", str(tmp_path / "model"), data=X)


class Payload:
    def __reduce__(self):
        return print, ("it ran",)


def test_the_gates_hold_in_a_folder_too(tmp_path, capsys):
    _sklearn_pickle(tmp_path / "model")
    joblib.dump(Payload(), tmp_path / "model" / "model.pkl")
    with pytest.raises(UntrustedError):
        onnxtool.convert(str(tmp_path / "model"), tmp_path / "model.onnx", data=X)
    assert "it ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("flavors:\n  sklearn:\n    pickled_model: ../secret.pkl\n", "outside of its folder"),
        ("flavors:\n  sklearn:\n    pickled_model: /etc/passwd\n", "outside of its folder"),
        ("flavors:\n  sklearn:\n    pickled_model: absent.pkl\n", "lacks the sklearn model"),
        ("flavors:\n  sklearn: {}\n", "lacks the sklearn model"),
        ("flavors:\n  spark:\n    model_data: x\n", "spark, of which none converts"),
        ("flavors: [\n", "is damaged"),
        ("!!python/object/apply:os.system ['true']\n", "is damaged"),
        ("run_id: 1\n", "names no flavors"),
        ("\xff\x00", "is damaged"),
    ],
)
def test_a_description_that_is_none_is_one_error(tmp_path, description, message):
    (tmp_path / "secret.pkl").touch()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "MLmodel").write_bytes(description.encode("latin-1"))
    with pytest.raises(SourceError, match=message) as caught:
        model_in(tmp_path / "model")
    assert len(str(caught.value).splitlines()) <= 2
