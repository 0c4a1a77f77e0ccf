"""Open a source model: recognised by its content, in a confined process or in this one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnxtool.converters.framework import Conversion, ConvertOptions, Framework, frameworks
from onnxtool.errors import SourceError
from onnxtool.models.mlflow_folder import is_mlflow, model_in
from onnxtool.models.own_code import make_available
from onnxtool.models.parts import file_and_part, pick
from onnxtool.models.signature import Tensors
from onnxtool.models.source import LoadOptions, SourceModel
from onnxtool.opening.confined import SandboxedSource
from onnxtool.reports.model import SavedBy


def open_source(source: object, options: LoadOptions) -> SourceModel:
    """Recognise and open a source model.

    Args:
        source: A path, `FILE::PART` for a model in the dictionary or list that a file holds, a folder in MLflow's
            format, a `package.module:callable`, or a live estimator, module or Keras model.
        options: How to open it.

    Raises:
        SourceError: nothing recognises it, it cannot be opened, or it takes more than its limits.
    """
    if isinstance(source, SourceModel):
        return source
    path, part, text = None, "", ""
    model, saved_by = source, list[SavedBy]()
    if isinstance(source, str | Path):
        text, part = file_and_part(str(source))
        text = str(model_in(Path(text))) if is_mlflow(Path(text)) else text
        framework = _by(lambda f: f.recognises(text), _unrecognised(text))
        path = Path(text) if Path(text).exists() else None
        if options.limits and framework.confined and path:
            return SandboxedSource(str(source), options, options.limits)
        make_available(text, options.trust, options.code, options.plugins)
        try:
            model = framework.load(text, options)
        except RecursionError as error:
            raise SourceError(f"{text} is nested more deeply than Python can follow: it is damaged.") from error
        saved_by = framework.saved_by(text, model) if path else []
    model = pick(model, part, lambda one: any(framework.owns(one) for framework in frameworks().values()), text)
    wrapped = next(framework for framework in frameworks().values() if framework.owns(model)).wrap(model, options)
    if part:
        wrapped.notes = [*wrapped.notes, f"The source is {part} of what {text} holds."]
    wrapped.path = path
    wrapped.saved_by = saved_by
    return wrapped


def convert_source(source: SourceModel, example: Tensors, options: ConvertOptions) -> Conversion:
    """Convert a model that `open_source` opened, where it was opened; see `Framework.convert`."""
    if isinstance(source, SandboxedSource):
        return Conversion(*source.convert(example, options))
    return frameworks()[source.framework].convert(source, example, options)


def _by(test: Callable[[Framework], bool], otherwise: str) -> Framework:
    framework = next((framework for framework in frameworks().values() if test(framework)), None)
    if framework is None:
        raise SourceError(otherwise)
    return framework


def _unrecognised(source: str) -> str:
    path = Path(source)
    known = (
        "Known are scikit-learn pickles (.skops, .joblib, .pkl), PyTorch .pt2 files and package.module:callable, "
        "Keras .keras and .h5, TensorFlow SavedModel folders and .tflite files, XGBoost, LightGBM and CatBoost model "
        "files, folders of MLflow, of save_pretrained, sentence-transformers and PEFT, and ONNX."
    )
    if not path.exists():
        return f"{source}: no such file or folder. {known}"
    if path.is_file() and path.stat().st_size == 0:
        return f"{source} is empty. Save the model again."
    if path.is_dir():
        return f"{source} is a folder, but no SavedModel (it holds no saved_model.pb). {known}"
    return f"{source} is not recognised by its content. {known}"
