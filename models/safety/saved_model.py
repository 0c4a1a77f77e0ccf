"""Check the graph of a SavedModel before TensorFlow loads it.

Loading runs the functions that make and fill tables; converting and comparing run those of the signature. Both may
be anybody's. What a well-made SavedModel holds besides is run by nobody here: functions that save and restore its
weights, which TensorFlow puts into every one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnxtool.errors import SourceError, UntrustedError
from onnxtool.models.safety.tensorflow_operators import OPERATORS

ASSETS = "assets"

# By what they reach, as TensorFlow 2.21 has them in its registry, with older names of the same.
_PYTHON = {"EagerPyFunc", "PyFunc", "PyFuncStateless", "GeneratorDataset"}
_FILES = {
    "MatchingFiles", "MatchingFilesDataset", "ReadFile", "WriteFile", "DumpTensor",
    "WholeFileReader", "WholeFileReaderV2", "TextLineReader", "TextLineReaderV2", "TFRecordReader",
    "TFRecordReaderV2",
    "FixedLengthRecordReader", "FixedLengthRecordReaderV2", "LMDBReader", "RecordInput",
    "TextLineDataset", "TFRecordDataset", "TFRecordDatasetV2", "FixedLengthRecordDataset",
    "FixedLengthRecordDatasetV2", "LMDBDataset", "CSVDataset", "CSVDatasetV2", "SqlDataset", "CacheDataset",
    "CacheDatasetV2", "SnapshotDataset", "SnapshotDatasetV2", "SnapshotDatasetReader", "SnapshotNestedDatasetReader",
    "SnapshotChunkDataset", "ListSnapshotChunksDataset", "LoadDataset", "SaveDataset", "SaveDatasetV2",
    "DistributedSave", "DatasetToTFRecord", "CreateSummaryFileWriter", "CreateSummaryDbWriter",
    "InitializeTableFromTextFile", "CalibrationStatisticsSaver", "FileSystemSetConfiguration",
    "LoadAndRemapMatrix", "GenerateVocabRemapping", "FixedUnigramCandidateSampler",
}  # fmt: skip
_PROCESSES = {
    "DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "RpcServer", "RpcServerStart", "RpcServerRegister",
    "RpcClient", "RpcCall", "RemoteCall", "DataServiceDataset", "DataServiceDatasetV2", "DataServiceDatasetV3",
    "DataServiceDatasetV4", "RegisterDataset", "RegisterDatasetV2", "Send", "Recv", "Abort", "BigQueryReader",
}  # fmt: skip
FORBIDDEN = frozenset(
    {*_PYTHON, *_FILES, *_PROCESSES, *(f"Experimental{name}" for name in (*_FILES, *_PROCESSES))}
)
"""Operators that reach files of their own choosing, other processes, or Python: not even what never runs has them."""

CHECKPOINT = frozenset({
    "Save", "SaveSlices", "SaveV2", "Restore", "RestoreSlice", "RestoreV2", "MergeV2Checkpoints", "DTensorRestoreV2",
})  # fmt: skip
"""Operators that read and write weights: they are in every SavedModel, but no function that runs here calls them."""

TABLE_FROM_FILE = "InitializeTableFromTextFileV2"
"""Fills a table from one of the model's own assets, or from any file."""


STREAMS = (b"", b"stdout", b"stderr", b"log(info)", b"log(warning)", b"log(error)")
"""Where TensorFlow prints that is no file."""


def check(content: Any, folder: Path) -> None:
    """Check that nothing in a SavedModel reaches beyond its folder.

    Args:
        content: Its `SavedModel` message.
        folder: Where it lies.

    Raises:
        UntrustedError: an operator does; nothing of the model has run.
        SourceError: an asset lies outside of the folder.
    """
    for graph in content.meta_graphs:
        for node in _nodes(graph):
            if node.op in FORBIDDEN:
                raise _refusal(folder, node, "reaches files, other processes or Python code")
        functions = {function.signature.name for function in graph.graph_def.library.function}
        for node in _reached(graph):
            if node.op in CHECKPOINT:
                raise _refusal(folder, node, "reads or writes weights while the model runs")
            if node.op not in OPERATORS and node.op not in functions:
                raise _refusal(folder, node, "is none of TensorFlow's that only compute")
            if node.op == "PrintV2" and node.attr["output_stream"].s not in STREAMS:
                raise _refusal(folder, node, "prints to a file")
        for node in _tables_of_foreign_files(graph):
            raise _refusal(folder, node, "reads a file that is none of the model's assets")
        for asset in graph.asset_file_def:
            path = (folder / ASSETS / asset.filename).resolve()
            if not path.is_relative_to((folder / ASSETS).resolve()):
                raise SourceError(f"{folder} names the asset {asset.filename!r}, which lies outside of it.")


def _refusal(folder: Path, node: Any, why: str) -> UntrustedError:
    return UntrustedError(
        f"{folder} holds the operator {node.op} ({node.name}), which {why}. "
        "It was not loaded; save the model without it."
    )


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.graph_def.node
    for function in graph.graph_def.library.function:
        yield from function.node_def


def _reached(graph: Any) -> Iterator[Any]:
    """The nodes that run when the model is loaded or called, in whichever function they are."""
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    waiting = [name for name in graph.object_graph_def.concrete_functions if name in functions]
    for node in _reached_in_the_graph(graph):
        yield node
        waiting += [called for called in _called(node) if called in functions]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in functions[name].node_def:
            yield node
            waiting += [called for called in _called(node) if called in functions]


def _reached_in_the_graph(graph: Any) -> Iterator[Any]:
    """The nodes that signatures and initialisation need, in a SavedModel of TensorFlow 1, which is a graph.

    TensorFlow 2 runs nothing of the graph, which holds the operator that restores the weights there too.
    """
    if len(graph.object_graph_def.nodes):
        return
    nodes = {node.name: node for node in graph.graph_def.node}
    waiting = [tensor.name for entry in graph.signature_def.values() for tensor in entry.outputs.values()]
    waiting += [tensor.name for entry in graph.signature_def.values() for tensor in entry.inputs.values()]
    for collection in graph.collection_def.values():
        waiting += collection.node_list.value
    seen: set[str] = set()
    while waiting:
        name = waiting.pop().removeprefix("^").partition(":")[0]
        if name in nodes and name not in seen:
            seen.add(name)
            yield nodes[name]
            waiting += nodes[name].input


def _called(node: Any) -> Iterator[str]:
    """Names of the functions that a node may call."""
    yield node.op
    for value in node.attr.values():
        yield value.func.name
        yield from (function.name for function in value.list.func)


def _tables_of_foreign_files(graph: Any) -> Iterator[Any]:
    """Nodes that fill a table from a file, where it is not plain that the file is an asset.

    Plain is: in a function that no other calls, with the name of the file as an argument that is bound to an asset.
    """
    functions = graph.graph_def.library.function
    called = {name for function in functions for node in function.node_def for name in _called(node)}
    yield from (node for node in graph.graph_def.node if node.op == TABLE_FROM_FILE)
    for function in functions:
        name = function.signature.name
        bound = graph.object_graph_def.concrete_functions.get(name)
        arguments = [argument.name for argument in function.signature.input_arg]
        for node in function.node_def:
            if node.op != TABLE_FROM_FILE:
                continue
            file = node.input[1] if len(node.input) > 1 else ""
            if (
                name in called
                or bound is None
                or file not in arguments
                or not _is_asset(graph, bound, arguments, file)
            ):
                yield node


def _is_asset(graph: Any, bound: Any, arguments: list[str], name: str) -> bool:
    place = arguments.index(name) - (len(arguments) - len(bound.bound_inputs))  # captures come last
    if place < 0:
        return False
    bound_node = graph.object_graph_def.nodes[bound.bound_inputs[place]]
    return str(bound_node.WhichOneof("kind")) == "asset"
