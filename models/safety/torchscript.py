"""Check the code of a TorchScript archive before PyTorch loads it.

The code is text, in PyTorch's own dialect of Python. It is not parsed here, since two parsers may read it in two
ways: every name in it that could lead to an operator is looked at, wherever it stands.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path

from onnxtool.errors import SourceError, UntrustedError, require
from onnxtool.models.safety.archives import DAMAGE

REACHING = frozenset({"from_file", "save", "rpc_async", "rpc_remote", "rpc_sync", "PythonOp", "IgnoredPythonOp"})
"""Operators that reach files, other processes or Python; a tensor has them as methods too."""

NAMESPACES = frozenset({"aten", "prim", "quantized", "_quantized", "torchvision", "onnx"})
"""Libraries of operators that only compute, except those in `REACHING`."""

CLASSES = ("quantized", "xnnpack", "mkldnn")
"""Libraries whose classes in C++ hold packed weights, and no more."""

_NAME = re.compile(r"[A-Za-z_]\w*(?:\s*\.\s*[A-Za-z_]\w*)*")
_CLASS = re.compile(rb"torch\.classes\.(\w*)")


def check(path: Path, trust: Collection[str] = ()) -> None:
    """Check that an archive calls only operators that compute.

    Args:
        path: The archive.
        trust: Names that it may use besides.

    Raises:
        UntrustedError: it does; nothing of it has run.
        SourceError: it is damaged.
    """
    aten = {name.partition("::")[2] for name in _operators() if name.startswith("aten::")}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                content = archive.read(entry)
                for found in _CLASS.findall(content):
                    if found.decode() not in CLASSES and f"torch.classes.{found.decode()}" not in trust:
                        raise _refusal(path, f"torch.classes.{found.decode()}")
                if "/code/" in f"/{entry}" and entry.endswith(".py"):
                    for name in _foreign(content.decode(), aten):
                        if name not in trust:
                            raise _refusal(path, name)
    except UntrustedError:
        raise
    except DAMAGE as error:
        raise SourceError(
            f"{path} cannot be opened as TorchScript: it is damaged. Save the model again."
        ) from error


def _foreign(code: str, aten: Collection[str]) -> Iterator[str]:
    """Names in code that lead, or could lead, to an operator that is not known to compute only."""
    for match in _NAME.finditer(code):
        before = code[: match.start()].rstrip()[-1:]
        parts = [part.strip() for part in match[0].split(".")]
        attributes = parts if before == "." else parts[1:]
        if reaching := REACHING.intersection(attributes):
            yield ".".join((*parts[: parts.index(min(reaching))], min(reaching)))
        if before == ".":
            continue
        if parts[0] == "ops" and (len(parts) < 3 or parts[1] not in NAMESPACES):
            yield ".".join(parts)
        if parts[0] == "torch" and (len(parts) < 2 or not _is_known(parts[1:], aten)):
            yield ".".join(parts)


def _is_known(attributes: list[str], aten: Collection[str]) -> bool:
    """Whether what follows `torch.` is an operator of ATen, a dtype, or in a module of such."""
    import torch

    if attributes[0] in aten:
        return True
    value = getattr(torch, attributes[0], None)
    return isinstance(value, torch.dtype | torch.layout | torch.memory_format) or attributes[0] in _MODULES


_MODULES = frozenset(
    {"backends", "device", "jit", "linalg", "fft", "special", "sparse", "nn", "Tensor", "Generator"}
)
"""Namespaces of PyTorch that the dialect reads as ATen's."""


def _operators() -> Iterator[str]:
    torch = require("torch", "torch")
    yield from (schema.name for schema in torch._C._jit_get_all_schemas())


def _refusal(path: Path, name: str) -> UntrustedError:
    return UntrustedError(
        f"{path} uses {name[:80]}, which is no operator of PyTorch that only computes. Nothing of it has run. "
        f"If you know where the file comes from: --trust {name[:80]}"
    )
