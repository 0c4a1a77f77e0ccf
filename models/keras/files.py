"""What the files of Keras 2 and 3 hold, and which code of others they name."""

from __future__ import annotations

import importlib
import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from onnxtool.errors import SourceError, UntrustedError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.rows.domain import Domain
from onnxtool.models.safety.archives import DAMAGE, members

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"
MEMBERS = ("metadata.json", "config.json")
"""What a `.keras` archive starts with; the weights follow."""

UNSAFE = {
    "Lambda": "Python bytecode",
    "__lambda__": "Python bytecode",
    "TFSMLayer": "the path of a SavedModel",
    "TorchModuleWrapper": "a PyTorch pickle",
}
"""Classes whose saved form holds code or names other files, and what it is."""


def is_keras_file(path: Path) -> bool:
    """Whether a file is an HDF5 file, or a zip archive that Keras wrote, perhaps cut short."""
    if not path.is_file():
        return False
    if found := members(path):
        return set(MEMBERS) <= found
    with path.open("rb") as file:
        head = file.read(64)
    # The directory is at an archive's end: of one cut short, only the first member's name is left.
    return head.startswith(HDF5_SIGNATURE) or (
        head.startswith(ZIP_SIGNATURE) and head[30:].startswith(tuple(name.encode() for name in MEMBERS))
    )


def saved_version(path: Path) -> str | None:
    """The release of Keras that saved a file which `load_keras` could open, where the file names it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _parse(path, archive.read("metadata.json")).get("keras_version")
    with require("h5py", "keras").File(path, "r") as file:
        version = file.attrs.get("keras_version")
        return version.decode() if isinstance(version, bytes) else version


def is_hdf5(path: Path) -> bool:
    """Whether a file is an HDF5 file, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of the model in a file, without that of its optimizer and losses.

    Raises:
        SourceError: the file is damaged, or holds weights only.
    """
    config = _hdf5_config(path) if is_hdf5(path) else _archive_config(path)
    config.pop("compile_config", None)  # losses and optimizers are not loaded
    return config


def _archive_config(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read("config.json")
    except DAMAGE as error:
        raise SourceError(f"{path} is a damaged .keras file, or is cut short. Save the model again.") from error
    return _parse(path, text)


def _hdf5_config(path: Path) -> dict[str, Any]:
    h5py = require("h5py", "keras")
    try:
        with h5py.File(path, "r") as file:
            text = file.attrs.get("model_config")
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise SourceError(f"{path} is a damaged HDF5 file, or is cut short. Save the model again.") from error
    if text is None:
        raise SourceError(
            f"{path} holds weights or data, but no model: it has no model_config. "
            "Load the weights into the model in Python, and save it as .keras."
        )
    return _parse(path, text)


def _parse(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, TypeError):
        config = None
    if not isinstance(config, dict):
        raise SourceError(f"{path} holds no configuration of a Keras model. Save the model again.")
    return config


def custom_objects(
    path: Path, config: Any, trust: Sequence[str], library: Any, own: Sequence[str] = ("keras",)
) -> dict[str, Any]:
    """Import the classes and functions of other packages that a model is made of, as far as they are trusted.

    Raises:
        UntrustedError: one is not; or the file holds code, which no trust admits.
        SourceError: a trusted one cannot be imported.
    """
    saving = library.saving
    custom: dict[str, Any] = {}
    for part in parts(config):
        kind, module = str(part["class_name"]), str(part.get("module") or "")
        if kind in UNSAFE:
            raise UntrustedError(
                f"{path} holds a {kind}, which is {UNSAFE[kind]}; none of it was run. Replace it by a registered "
                "layer class and save again, or load the model yourself and pass it to onnxtool.convert."
            )
        key = str(part.get("config") if kind == "function" else part.get("registered_name") or kind)
        if (kind.startswith("__") and not module) or module.partition(".")[0] in own:
            continue
        if saving.get_registered_object(key):  # the program that calls us has imported it
            continue
        name = key.rpartition(">")[2] if kind == "function" else kind.rpartition(">")[2]
        known = module not in ("", "builtins")  # functions, and all of the old format, do not say where they are
        full = f"{module if known else 'package'}.{name}"
        trusted = [entry for entry in trust if entry == full or (not known and entry.endswith(f".{name}"))]
        if trusted:
            custom[key] = _import(trusted[0])
        elif module:  # without one it may be Keras's own: Keras looks among its own names only
            raise UntrustedError(
                f"{path} needs {full}, which is not Keras's own. Pass --trust {full} to import it."
            )
    return custom


def _import(full: str) -> Any:
    module, _, name = full.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SourceError(f"--trust {full}: it cannot be imported ({first_line(error)}).") from error


def parts(config: Any) -> Iterator[dict[str, Any]]:
    """Every object of a saved model."""
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for value in config.values():
            yield from parts(value)
    elif isinstance(config, list):
        for value in config:
            yield from parts(value)


@contextmanager
def with_suffix(path: Path, *suffixes: str) -> Iterator[Path]:
    """Give a file the suffix that Keras goes by, through a link in a folder of its own."""
    if path.suffix in suffixes:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"model{suffixes[0]}"
        link.symlink_to(path.resolve())
        yield link


def domain_of(layer: Any, layers: Any) -> Domain | None:
    """The domain of what a layer reads, where the layer fixes it; `layers` is its Keras's module of layers."""
    if isinstance(layer, layers.Embedding):
        return Domain(high=layer.input_dim)
    if isinstance(layer, layers.CategoryEncoding):
        return Domain(high=layer.num_tokens)
    if isinstance(layer, layers.TextVectorization):
        words = tuple(map(str, layer.get_vocabulary()))
        return Domain(choices=(*words, *(f"{word.upper()}!" for word in words)), words=8)
    if isinstance(layer, layers.StringLookup | layers.IntegerLookup) and layer.invert:
        return Domain(high=layer.vocabulary_size())
    if isinstance(layer, layers.StringLookup | layers.IntegerLookup):
        return Domain(choices=tuple(layer.get_vocabulary()))
    if isinstance(layer, layers.Normalization) and not layer.invert:
        mean, variance = (np.asarray(value, dtype=np.float64)[0] for value in (layer.mean, layer.variance))
        return Domain(center=mean, spread=np.sqrt(variance))
    if isinstance(layer, layers.Rescaling):
        scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
        return Domain(center=-offset / scale, spread=np.abs(1 / scale), high=256)
    return None
