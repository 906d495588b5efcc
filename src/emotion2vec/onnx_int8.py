"""ONNX models with weights of eight bits: a quarter of the size, and faster products on CPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_STEPS = 127
"""Between the lowest and the highest number of a row. Seven bits instead of eight: processors
without VNNI add two products in 16 bits, where 2 x 127 x 127 has room and 2 x 255 x 127 would be
cut off silently."""

SMALL = 4096
"""Numbers under which a weight stays as it is: norms, biases, the last layer."""

AXES = {"MatMul": 1, "Conv": 0}
"""Of a weight's outputs, by what is done with it."""


def quantize(
    weights: NDArray[np.float32], axis: int, kind: Any = np.int8
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Weights in integer steps, and the sizes of the steps, one for each output.

    Args:
        weights: of a layer
        axis: that of the outputs
        kind: of the steps, of which the largest weight of an output takes the most

    >>> steps, sizes = quantize(np.array([[127, 1], [-2, 0.25]], np.float32), axis=1)
    >>> steps.tolist(), sizes.shape
    ([[127, 127], [-2, 32]], (1, 2))
    """
    others = tuple(i for i in range(weights.ndim) if i != axis)
    sizes = np.abs(weights).max(axis=others, keepdims=True) / np.iinfo(kind).max
    sizes[sizes == 0] = 1
    return np.round(weights / sizes).astype(kind), sizes.astype(np.float32)


def to_int8(model: Any, delicate: tuple[str, ...]) -> None:
    """Store the weights of an ONNX model in eight bits, and compute products in them; in place.

    Products with a weight (`MatMul`) are computed in integers. Each row of the input, a frame, has
    steps of its own, so that an answer does not depend on what it is batched with, as it would
    with the steps for a whole batch of onnxruntime's `quantize_dynamic`, which is also less exact.
    Convolutions are computed in float32 (their integer kernels are slower): onnxruntime widens
    their weights when it loads the file.

    Args:
        model: an `onnx.ModelProto` of opset 18 or higher
        delicate: how the names of weights begin that are stored in 16 bits instead, and computed
            with in float32
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    rewriter = _Rewriter(graph)
    for node in graph.node:
        tensor = weights.get(node.input[1]) if len(node.input) > 1 else None
        if tensor is None or np.prod(tensor.dims) < SMALL or node.op_type not in AXES:
            rewriter.nodes.append(node)
        elif node.op_type == "MatMul" and not tensor.name.startswith(delicate):
            rewriter.multiply_integers(node, tensor)
        else:
            kind = np.int16 if tensor.name.startswith(delicate) else np.int8
            rewriter.store_steps(tensor, AXES[node.op_type], kind)
            rewriter.nodes.append(node)
    nodes = [*rewriter.at_start, *rewriter.nodes]
    del graph.node[:]
    graph.node.extend(nodes)


class _Rewriter:
    """The nodes of a graph as they become."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.at_start: list[Any] = []
        self.nodes: list[Any] = []
        self._inputs: dict[str, tuple[str, str, str]] = {}
        self._constants = {
            "int8.inverse": np.float32(1 / MOST_STEPS),
            "int8.tiny": np.float32(1e-12),
            "int8.last": np.array([-1]),
            "int8.one": np.float32(1),
            "int8.zero": np.uint8(0),
        }

    def store_steps(self, tensor: Any, axis: int, kind: Any) -> None:
        """Keep a weight in integers and compute with it in float32."""
        name = tensor.name
        steps, sizes = quantize(_values(tensor), axis, kind)
        self._replace(tensor, steps, f"{name}.stored")
        self._add(f"{name}.sizes", sizes)
        self.at_start.append(_node("Cast", [f"{name}.stored"], f"{name}.steps", to=1))
        self.at_start.append(_node("Mul", [f"{name}.steps", f"{name}.sizes"], name))

    def multiply_integers(self, node: Any, tensor: Any) -> None:
        """Write a product with a weight as one of integers, scaled by row and by column.

        With x = low + size * steps in a row: x @ W = size * (steps @ W) + low * (sums of W).
        """
        name, output = tensor.name, node.output[0]
        steps, sizes = quantize(_values(tensor), axis=1)
        self._replace(tensor, steps, f"{name}.int8")
        self._add(f"{name}.sizes", sizes[0])
        self._add(f"{name}.sums", sizes[0] * steps.sum(axis=0, dtype=np.float32))
        rows, row_sizes, low = self._quantized(node.input[0])
        self.nodes += [
            _node("MatMulInteger", [rows, f"{name}.int8"], f"{output}.integers"),
            _node("Cast", [f"{output}.integers"], f"{output}.steps", to=1),
            _node("Mul", [f"{output}.steps", row_sizes], f"{output}.rows"),
            _node("Mul", [f"{output}.rows", f"{name}.sizes"], f"{output}.above"),
            _node("Mul", [low, f"{name}.sums"], f"{output}.low"),
            _node("Add", [f"{output}.above", f"{output}.low"], output),
        ]

    def _quantized(self, x: str) -> tuple[str, str, str]:
        """Names of an input's rows in steps, the size of each row's steps, and its lowest number.

        Made once for all products with the input.
        """
        if x not in self._inputs:
            self.nodes += [
                _node("ReduceMin", [x, "int8.last"], f"{x}.low", keepdims=1),
                _node("ReduceMax", [x, "int8.last"], f"{x}.high", keepdims=1),
                _node("Sub", [f"{x}.high", f"{x}.low"], f"{x}.span"),
                _node("Mul", [f"{x}.span", "int8.inverse"], f"{x}.size_or_zero"),
                _node("Max", [f"{x}.size_or_zero", "int8.tiny"], f"{x}.size"),
                _node("Sub", [x, f"{x}.low"], f"{x}.above"),
                _node("Div", [f"{x}.above", f"{x}.size"], f"{x}.scaled"),
                _node("QuantizeLinear", [f"{x}.scaled", "int8.one", "int8.zero"], f"{x}.int8"),
            ]
            self._inputs[x] = f"{x}.int8", f"{x}.size", f"{x}.low"
            for name, value in self._constants.items():
                self._add(name, np.asarray(value))
            self._constants = {}
        return self._inputs[x]

    def _replace(self, tensor: Any, values: NDArray[Any], name: str) -> None:
        from onnx import numpy_helper

        tensor.CopyFrom(numpy_helper.from_array(values, name))

    def _add(self, name: str, values: NDArray[Any]) -> None:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(values, name))


def _values(tensor: Any) -> NDArray[np.float32]:
    from onnx import numpy_helper

    values: NDArray[np.float32] = numpy_helper.to_array(tensor)
    return values


def _node(kind: str, inputs: list[str], output: str, **attributes: int) -> Any:
    from onnx import helper

    return helper.make_node(kind, inputs, [output], **attributes)
