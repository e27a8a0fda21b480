"""Builds ONNX nodes one by one, for what a tracer would not write as it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


class Nodes:
    """The nodes of a function in order, with names made for what they compute.

    A call adds an operator: ``nodes("Add", a, b)`` gives the name of the sum, and ``nodes("TopK",
    a, k, outputs=2)`` those of both outputs. Numbers and arrays among the operands become
    constants of the function.
    """

    def __init__(self) -> None:
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], str] = {}
        self._first: list[onnx.NodeProto] = []
        self._scopes: list[list[onnx.NodeProto]] = [[]]
        self._named = 0

    def __call__(self, operator: str, *operands: Any, outputs: int = 1, **attributes: Any) -> Any:
        names = [self._operand(operand) for operand in operands]
        made = [self._name() for _ in range(outputs)]
        self._scopes[-1].append(helper.make_node(operator, names, made, **attributes))
        return made[0] if outputs == 1 else tuple(made)

    def either(self, condition: str, then: Callable[[], str], other: Callable[[], str]) -> str:
        """What ``then`` computes where the scalar ``condition`` holds, else what ``other`` does;
        the other one's nodes do not run. A branch may give what was there before."""
        branches = {"then_branch": self._branch(then), "else_branch": self._branch(other)}
        made: str = self("If", condition, **branches)
        return made

    def any(self, flags: str) -> str:
        """() whether one of ``flags`` holds."""
        count = self("ReduceSum", self("Cast", flags, to=TensorProto.INT64), keepdims=0)
        made: str = self("Greater", count, np.int64(0))
        return made

    def name_as(self, value: str, name: str) -> None:
        """Give ``value`` as the function's output ``name``."""
        self._scopes[-1].append(helper.make_node("Identity", [value], [name]))

    @property
    def all(self) -> list[onnx.NodeProto]:
        return [*self._first, *self._scopes[0]]

    def _branch(self, body: Callable[[], str]) -> onnx.GraphProto:
        self._scopes.append([])
        result = body()
        if not any(result in node.output for node in self._scopes[-1]):
            result = self("Identity", result)
        output = onnx.ValueInfoProto(name=result)
        return helper.make_graph(self._scopes.pop(), "branch", [], [output])

    def _operand(self, operand: Any) -> str:
        return operand if isinstance(operand, str) else self._constant(np.asarray(operand))

    def _constant(self, array: NDArray[Any]) -> str:
        """Of the whole function: branches read what lies outside them."""
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._constants:
            name = self._constants[key] = self._name()
            value = numpy_helper.from_array(array)
            self._first.append(helper.make_node("Constant", [], [name], value=value))
        return self._constants[key]

    def _name(self) -> str:
        self._named += 1
        return f"d{self._named}"
