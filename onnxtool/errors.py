"""Every error that onnxtool raises on purpose.

A message says what is wrong, where, and how to fix it, in one or two lines: the command line prints it
as it stands and exits with 2.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from onnxtool.interrupts import deferred_interrupts


class OnnxtoolError(Exception):
    """Root of all errors that a user can fix."""


class UsageError(OnnxtoolError):
    """The options do not fit each other or the model."""


class SourceError(OnnxtoolError):
    """A source model cannot be recognised or loaded."""


class UntrustedError(SourceError):
    """A pickle or archive names code that is not known to be safe; none of it has run."""


class DataError(OnnxtoolError):
    """A data file cannot be read, or does not fit the model's inputs."""


class ConversionError(OnnxtoolError):
    """The model cannot be expressed in ONNX with these options."""


class ModelError(OnnxtoolError):
    """An ONNX file is damaged, or ONNX Runtime refuses it."""


class StrayWeightsError(ModelError):
    """An ONNX file names files outside of its folder; none of them was read."""


class OutputError(OnnxtoolError):
    """A result cannot be written."""


class MissingExtraError(OnnxtoolError):
    """An optional dependency is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        MissingExtraError: it is not installed; the message names the extra that brings it.
    """
    try:
        with deferred_interrupts():
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A module missing *inside* an installed library is that library's fault, not a missing extra.
        if error.name and error.name.partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingExtraError(
            f"{module.partition('.')[0]} is not installed. Install it with: pip install 'onnxtool[{extra}]'"
        ) from error
