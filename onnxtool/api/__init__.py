"""The commands as Python functions, one module for each."""

from onnxtool.api.arguments import LoadArguments, PathLike, Progress
from onnxtool.api.benching import bench
from onnxtool.api.bundling import bundle
from onnxtool.api.converting import convert
from onnxtool.api.linting import lint
from onnxtool.api.verifying import verify

__all__ = ["LoadArguments", "PathLike", "Progress", "bench", "bundle", "convert", "lint", "verify"]
