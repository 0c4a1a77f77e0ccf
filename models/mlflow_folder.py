"""Models in MLflow's format: a folder with an MLmodel file, which names the framework's own model file.

Only that file is opened, through the framework's own gates; nothing of MLflow runs, neither its loaders nor the code
that a folder may bring along.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxtool.errors import SourceError, require

DESCRIPTION = "MLmodel"

# By flavour, the framework's own before those that hold the same model in another form. Names in braces are entries
# of the flavour; of several places the first that there is counts.
_PLACES: Mapping[str, tuple[str, ...]] = {
    "sklearn": ("{pickled_model}",),
    "xgboost": ("{data}",),
    "lightgbm": ("{data}",),
    "catboost": ("{data}",),
    "keras": ("{data}/model.keras", "{data}/model.h5"),
    "tensorflow": ("{data}/model.keras", "{data}/model.h5", "{data}/model", "{saved_model_dir}"),
    "pytorch": ("{model_data}/model.pt2", "{model_data}/model.pth"),
    "onnx": ("{data}",),
}


def is_mlflow(path: Path) -> bool:
    """Whether a path is a folder in MLflow's format."""
    return (path / DESCRIPTION).is_file()


def model_in(folder: Path) -> Path:
    """The framework's own model in a folder in MLflow's format.

    Raises:
        SourceError: its description is damaged, names no flavour that converts, or no file inside the folder.
        MissingExtraError: there is no YAML reader.
    """
    flavours = _flavours(folder / DESCRIPTION)
    known = [name for name in _PLACES if isinstance(flavours.get(name), dict)]
    if not known:
        raise SourceError(
            f"{folder} is an MLflow model of the flavours {', '.join(map(str, flavours)) or 'none'}, of which none "
            f"converts. Those that do: {', '.join(_PLACES)}."
        )
    entries = {"data": "data", "model_data": "data", **flavours[known[0]]}  # mlflow.pytorch leaves its folder out
    root = folder.resolve()
    for place in _PLACES[known[0]]:
        try:
            path = (root / place.format_map(entries)).resolve()
        except (KeyError, ValueError):
            continue
        if not path.is_relative_to(root):
            raise SourceError(f"{folder / DESCRIPTION} names a file outside of its folder: {path}.")
        if path != root and path.exists():
            return path
    raise SourceError(
        f"{folder} lacks the {known[0]} model that its {DESCRIPTION} file names. Copy it as a whole."
    )


def _flavours(description: Path) -> dict[str, Any]:
    yaml = require("yaml", "mlflow")
    try:
        content = yaml.safe_load(description.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise SourceError(f"{description} is damaged: {str(error).splitlines()[0]}.") from error
    flavours = content.get("flavors") if isinstance(content, dict) else None
    if not isinstance(flavours, dict):
        raise SourceError(f"{description} names no flavors: it is not MLflow's.")
    return flavours
