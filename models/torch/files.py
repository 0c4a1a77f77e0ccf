"""PyTorch's files: recognised by their content, and opened without running code in them.

A `.pt2` archive can carry code in four ways: pickles, compiled libraries, the names of the functions that its
graph calls, and the shape expressions that SymPy evaluates. `torch.export.load` trusts all four, so all four
are looked at before it is called.
"""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import re
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias

from onnxtool.errors import SourceError, UntrustedError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.safety import torchscript
from onnxtool.models.safety.archives import DAMAGE

Kind: TypeAlias = Literal["export", "torchscript", "weights", "damaged"]

_ZIP = b"PK\x03\x04"
# PyTorch aligns every record of its archives with an extra field of this id: no other zip has it.
_PADDING = b"FB"
# torch.save before 1.6: a pickle of the magic number 0x1950A86A20F9469CFC6C.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# Operators of PyTorch that compute. Those of other libraries are known to their users alone.
_FUNCTIONS = re.compile(
    r"torch\.ops\.aten\.(?!(from_file|save|_print|warn|set_data|record_stream)\b)\w+(\.\w+)?"
    r"|torch\.ops\.(prims|quantized|quantized_decomposed|_quantized|torchvision|onnx)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|associative_scan|out_dtype|flex_attention"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast|tag_activation_checkpoint|wrap_activation_checkpoint"
    r"|auto_functionalized|auto_functionalized_v2|invoke_subgraph)"
    r"|torch\.(sym_|_sym_)\w+"
    r"|math\.\w+"
    r"|_operator\.(?!call\b|attrgetter\b|itemgetter\b|methodcaller\b)\w+"
)
_STATES = ("state_dict", "model_state_dict", "model_state")
"""Keys under which checkpoints keep the state dict."""
_FACTORIES = {f"builtins.{kind}" for kind in ("dict", "float", "int", "list", "set", "str", "tuple")}
"""Of defaultdicts among the inputs."""
_IS_CLASS = re.compile(r"[A-Z]\w*|floor|ceiling").fullmatch
_PLAIN_EXPRESSION = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Load, ast.Constant,
    ast.keyword, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip


def kind_of(path: Path) -> Kind | None:
    """The kind of a file by its content, or None when PyTorch did not write it.

    `weights` is anything of `torch.save`: a state dict, a checkpoint, a pickled module.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(_LEGACY):
        return "weights"
    if not head.startswith(_ZIP):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            # Otherwise the list of contents is that of an archive within this one, which has lost its own.
            whole = any(record.header_offset == 0 for record in archive.infolist())
            # Everything lies in one folder, named for the file; archives of torch 2.7 and before have none.
            names = {part for name in archive.namelist() for part in (name, name.partition("/")[2])}
    except DAMAGE:
        whole, names = False, set()
    if not whole:
        return "damaged" if _is_padded(path) else None
    if {"archive_format", "serialized_exported_program.json"} & names:
        return "export"
    if "constants.pkl" in names:
        return "torchscript"
    return "weights" if {"data.pkl", "version"} <= names else None


def read_export(path: Path, trust: Collection[str] = ()) -> Any:
    """Open a `.pt2` archive of `torch.export.save`, and return its `ExportedProgram`.

    Args:
        path: The file.
        trust: Functions that its graph may call besides PyTorch's own operators.

    Raises:
        UntrustedError: it carries code, or calls functions that are no operators. None of it has run.
        SourceError: it is damaged, or written by a version of PyTorch that the installed one cannot read.
    """
    torch = require("torch", "torch")
    with quiet(), _without_pickles(), path.open("rb") as file:
        try:
            _admit(path, trust)
            program = torch.export.load(file)
        except UntrustedError:
            raise
        except Exception as error:  # a damaged archive fails in as many ways as there are parsers in it
            if "weights_only" in str(error).lower() or "WeightsUnpickler" in str(error):
                raise UntrustedError(
                    f"{path} carries a pickle of more than tensors, which would run code. Save it again from its "
                    "source with torch.export.save."
                ) from error
            raise SourceError(
                f"{path} cannot be read by torch {torch.__version__}: {first_line(error)}\n"
                "Save it again with torch.export.save."
            ) from error
    program._guards_code = []  # Python code from the file, which would check the inputs
    return program


def exported_by(path: Path) -> str | None:
    """The release of PyTorch that saved a `.pt2` archive which `read_export` could open; None before 2.5."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.partition("/")[2].startswith("models/") or name == "serialized_exported_program.json":
                found = str(json.loads(archive.read(name)).get("torch_version", ""))
                return found if found[:1].isdigit() else None
    return None


def read_torchscript(path: Path, trust: Collection[str] = ()) -> Any:
    """Open a TorchScript archive, and return its `ScriptModule` on the CPU.

    Args:
        path: The file.
        trust: Operators that its code may call besides PyTorch's own that only compute.

    Raises:
        UntrustedError: its code calls another. None of it has run.
        SourceError: it is damaged, or needs operators that are not installed.
    """
    torch = require("torch", "torch")
    torchscript.check(path, trust)
    with quiet():
        try:
            return torch.jit.load(str(path), map_location="cpu")
        except RuntimeError as error:
            raise SourceError(
                f"{path} cannot be opened as TorchScript: {first_line(error)} Save the model again."
            ) from error


def read_weights(path: Path) -> dict[str, Any]:
    """Read a state dict: safetensors, or `torch.save` with nothing but tensors in it.

    Raises:
        UntrustedError: it is a pickle of more than tensors. None of it has run.
        SourceError: it is damaged, or holds no state dict.
    """
    torch = require("torch", "torch")
    if not path.is_file():
        raise SourceError(f"--weights {path}: no such file.")
    with path.open("rb") as file:
        head = file.read(9)
    try:
        # safetensors: length of the header in 8 bytes, then the header as JSON.
        if head[8:] == b"{" and not head.startswith(_ZIP):
            weights = require("safetensors.torch", "torch").load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" in str(error).lower():
            raise UntrustedError(
                f"--weights {path} is a pickle of more than tensors, which would run code. "
                "Save only the weights: torch.save(model.state_dict(), FILE)."
            ) from error
        raise SourceError(f"--weights {path} cannot be read: {first_line(error)}") from error
    if isinstance(weights, Mapping):  # of a checkpoint, with the state of the optimiser and more
        kept = (weights[key] for key in _STATES if isinstance(weights.get(key), Mapping))
        weights = next(kept, weights)
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise SourceError(f"--weights {path} holds no state dict but a {type(weights).__name__}.")
    return dict(weights)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence PyTorch's progress, logs, graph dumps and warnings: they are about its inside."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _is_padded(path: Path) -> bool:
    """Whether the first record of a zip that is cut short has PyTorch's padding."""
    with path.open("rb") as file:
        head = file.read(30)
        file.seek(int.from_bytes(head[26:28], "little"), os.SEEK_CUR)
        return len(head) == 30 and file.read(2) == _PADDING


@contextmanager
def _without_pickles() -> Iterator[None]:
    """Make every `torch.load` admit only tensors, those with weights_only=False too."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _admit(path: Path, trust: Collection[str]) -> None:
    """Refuse an archive that carries code.

    Raises:
        UntrustedError: it does.
    """
    import torch

    with zipfile.ZipFile(path) as archive:
        if "serialized_exported_program.json" in archive.namelist():  # torch 2.7 and before
            _admit_graph(path, json.loads(archive.read("serialized_exported_program.json")), trust)
            return
    # The reader that torch.export.load uses, so that both see the same records.
    reader = torch._C.PyTorchFileReader(str(path))
    for name in reader.get_all_records():
        if name.startswith(("data/aotinductor/", "data/constants/opaque_obj_")):
            raise UntrustedError(
                f"{path} carries code ({name}), which would run. Save the model with torch.export.save alone."
            )
        if name.startswith("models/"):
            _admit_graph(path, json.loads(reader.get_record(name)), trust)


def _admit_graph(path: Path, content: Any, trust: Collection[str]) -> None:
    pending = [content]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending.extend(item)
        if isinstance(item, str) and item.lstrip()[:1] in (
            "[",
            "{",
            '"',
        ):  # a tree of inputs, in JSON within the JSON
            with suppress(ValueError, RecursionError):
                pending.append(json.loads(item))
        if not isinstance(item, dict):
            continue
        pending.extend(item.values())
        # A node, or an operator given to another. Parameters and buffers have targets too, but no inputs.
        for function in (
            *([str(item["target"])] if "target" in item and "inputs" in item else ()),
            *([str(item["as_operator"])] if "as_operator" in item else ()),
        ):
            if not _FUNCTIONS.fullmatch(function) and function not in trust:
                raise UntrustedError(
                    f"{path} calls {function[:80]}, which is no operator of PyTorch that only computes. "
                    f"If you know where the file comes from: --trust {function[:80]}"
                )
        _admit_tree(path, item, trust)
        if "expr_str" in item and not _is_plain(item["expr_str"]):
            raise UntrustedError(f"{path} has a shape {str(item['expr_str'])[:80]!r} that is no plain formula.")


def _admit_tree(path: Path, item: Mapping[str, Any], trust: Collection[str]) -> None:
    """Refuse a tree of inputs that names a module: PyTorch would import it.

    Raises:
        UntrustedError: it does.
    """
    if "default_factory_module" in item:
        named = f"{item['default_factory_module']}.{item.get('default_factory_name')}"
        known = named in _FACTORIES
    elif "__enum__" in item:
        named, known = str(item.get("fqn")).replace(":", "."), False
    else:
        return
    if not known and named not in trust:
        raise UntrustedError(
            f"{path} has {named[:80]} in its inputs, which would be imported. "
            f"If you know where the file comes from: --trust {named[:80]}"
        )


def _is_plain(expression: object) -> bool:
    """Whether a shape is a formula of numbers, symbols and SymPy's functions: `Max(1, Symbol('s0'))`."""
    if not isinstance(expression, str):
        return False
    try:
        nodes = list(ast.walk(ast.parse(expression, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(
        isinstance(node, _PLAIN_EXPRESSION)
        and not (isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier())
        # SymPy's functions are classes with capital letters; eval, open and their like are not.
        and not (isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and _IS_CLASS(node.func.id)))
        for node in nodes
    )
