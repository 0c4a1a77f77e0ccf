"""The nodes of a graph that is being traced, before anything knows where they will stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

ML = "ai.onnx.ml"


class Recording:
    """Nodes and constants, in the order in which they were written.

    Attributes:
        nodes: The nodes.
        constants: Constants by name.
        opset: Version of the default operator set for which nodes are written.
        domains: Other operator sets that nodes need, with their versions.
    """

    def __init__(self, opset: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.opset = opset
        self.domains: dict[str, int] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._count = 0

    def name(self, kind: str) -> str:
        """A name that no other tensor of the recording has."""
        self._count += 1
        return f"traced_{kind.lower()}_{self._count}"

    def node(self, kind: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        """Write a node with one output, and return the output's name."""
        return self.nodes_of(kind, inputs, 1, domain, **attributes)[0]

    def nodes_of(self, kind: str, inputs: list[str], count: int, domain: str = "", **attributes: Any) -> list[str]:
        """Write a node with several outputs, and return their names."""
        outputs = [self.name(kind) for _ in range(count)]
        self.nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        if domain:
            self.domains.setdefault(domain, 3)
        return outputs

    def constant(self, values: NDArray[Any]) -> str:
        """The name of a constant with an array's values, written once; text is of dtype object."""
        array = np.ascontiguousarray(values).reshape(np.shape(values))
        content = tuple(array.ravel().tolist()) if array.dtype == object else array.tobytes()
        key = (array.dtype.str, array.shape, content)
        if key not in self._known:
            self._known[key] = self.name("constant")
            self.constants[self._known[key]] = numpy_helper.from_array(array, self._known[key])
        return self._known[key]

    def include(self, model: onnx.ModelProto, inputs: dict[str, str]) -> dict[str, str]:
        """Write the nodes of another model.

        Args:
            model: The model.
            inputs: Its inputs' names, with the names of the tensors here that they stand for.

        Returns:
            Its outputs' names, with the names that they have here.
        """
        names = dict(inputs)
        for tensor in model.graph.initializer:
            names[tensor.name] = self.name("constant")
            copied = onnx.TensorProto()
            copied.CopyFrom(tensor)
            copied.name = names[tensor.name]
            self.constants[copied.name] = copied
        for node in model.graph.node:
            names |= {output: self.name(node.op_type) for output in node.output if output}
        for node in model.graph.node:
            copied_node = onnx.NodeProto()
            copied_node.CopyFrom(node)
            rename(copied_node, names)
            self.nodes.append(copied_node)
        for entry in model.opset_import:
            if entry.domain:
                self.domains[entry.domain] = max(self.domains.get(entry.domain, 0), entry.version)
        return {output.name: names[output.name] for output in model.graph.output}

    def same_as(self, other: Recording) -> bool:
        """Whether another recording has the same nodes and constants."""
        return (
            [node.SerializeToString(deterministic=True) for node in self.nodes]
            == [node.SerializeToString(deterministic=True) for node in other.nodes]
            and {name: tensor.SerializeToString() for name, tensor in self.constants.items()}
            == {name: tensor.SerializeToString() for name, tensor in other.constants.items()}
        )  # fmt: skip


def rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    """Give a node's tensors, in its branches and bodies too, other names; those that are not listed stay."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    node.name = ""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                rename(inner, names)


def element(dtype: np.dtype[Any]) -> int:
    """ONNX's element type of a NumPy dtype; text is of dtype object."""
    return int(TensorProto.STRING if dtype == object else helper.np_dtype_to_tensor_dtype(dtype))
