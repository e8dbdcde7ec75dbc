"""A vector field as a graph of operations: what blocks of a solve are made of."""

from __future__ import annotations

import math
import re
import sys
from ast import literal_eval
from collections.abc import Callable, Hashable, Iterator
from functools import cached_property
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from node_cli.ode.graphs.lowering import NotWhole
from node_cli.ode.stepping import Slope

FEW_OPERATIONS = 32
_PART = re.compile(r"\.[A-Za-z_]\w*|\['[^'\\]*'\]|\[\d+\]")  # of a name: an attribute or an item
_OWN_NAMES = ("torch", "_operator", "math", "builtins")  # packages whose code is the same in all processes


class FieldGraph:
    """One vector field as a graph that is right as long as its guards hold; `functions` are compiled from it.

    `needs_grad` says which of its inputs have a gradient; those are all tensors that the vector field uses beside its
    time and state. `y` is a stand-in for a state, `(batch, ...)` with any batch size.

    Raises:
        NotWhole: the graph is not all that an evaluation does.
    """

    def __init__(self, gm: GraphModule) -> None:
        self.gm = gm
        placeholders = gm.graph.find_nodes(op="placeholder")
        self._examples = [node.meta["example_value"] for node in placeholders]
        names = [node.meta["grapharg"].source.name for node in placeholders]
        self._places = [name if isinstance(name, str) else name() for name in names]
        if "L['y']" not in self._places:
            raise NotWhole("it does not use the state")
        self.y: Any = self._examples[self._places.index("L['y']")]
        self._is_input = [
            isinstance(example, Tensor) and place not in ("L['t']", "L['y']")
            for example, place in zip(self._examples, self._places, strict=True)
        ]
        self.inputs = self.inputs_of(self._examples)
        self.needs_grad = tuple(tensor.requires_grad for tensor in self.inputs)
        self._sizes = {i: self._size(example) for i, example in enumerate(self._examples) if not _is_tensor(example)}
        returned: Any = gm.graph.output_node().args[0]
        results = [node.meta["example_value"] for node in returned]
        if len(results) != 1 or not _is_tensor(results[0]):
            raise NotWhole("it keeps more of an evaluation than the slope")
        if results[0].shape != self.y.shape:
            raise NotWhole("it does not return the shape of the state")
        modules = [str(getattr(node.target, "__module__", "")) for node in gm.graph.nodes]
        self._differentiates = any("functorch" in name or "autograd" in name for name in modules)
        self.functions: dict[Hashable, Any] = {}
        self.is_whole = False
        self.num_operations = 0  # of an evaluation
        self._num_checked = len(self.y.fake_mode.shape_env.guards)  # by torch._dynamo, at each call
        self._ranges = {str(symbol): str(range) for symbol, range in self.y.fake_mode.shape_env.var_to_range.items()}
        self._shape: tuple[int, ...] = ()
        self._known: dict[tuple[int, ...], int] = {}  # how many of the guards are known to hold for a shape

    @cached_property
    def reader(self) -> Callable[[dict[str, Any]], tuple[Any, ...]] | None:
        """What finds the inputs by the names that torch._dynamo has for them; None: one is no attribute or item."""
        places = self.inputs_of(self._places)
        paths = [tuple(_PART.findall(place)) for place in places]
        if any("L" + "".join(path) != place for path, place in zip(paths, places, strict=True)):
            return None
        # What several paths begin with is read once, from the scope on.
        beginnings = list(dict.fromkeys(path[:n] for path in paths for n in range(len(path) + 1)))
        steps = [(beginnings.index(path[:-1]), _getter(path[-1])) for path in beginnings[1:]]
        ends = [beginnings.index(path) for path in paths]

        def read(scope: dict[str, Any]) -> tuple[Any, ...]:
            found: list[Any] = [scope]
            for place, get in steps:
                found.append(get(found[place]))
            return tuple([found[end] for end in ends])

        return read

    @property
    def is_short(self) -> bool:
        """Whether an evaluation has few operations; the time that compiling takes grows with more than their number."""
        return self.num_operations <= FEW_OPERATIONS

    def holds_for(self, shape: tuple[int, ...]) -> bool:
        """Whether all that is compiled so far, and is compiled from now on, is right for a state of this shape.

        The compiler takes sizes for granted (a sum of so few numbers in one piece) that torch._dynamo does not check.
        """
        self._shape = shape
        return self.holds()

    def holds(self) -> bool:
        """The same for the shape of the last call of `holds_for`."""
        guards = self.y.fake_mode.shape_env.guards
        if self._known.get(self._shape) == len(guards):
            return True
        sizes = {
            size.node.expr: actual
            for size, actual in zip(self.y.shape, self._shape, strict=True)
            if isinstance(size, torch.SymInt)
        }
        late = guards[self._num_checked :]
        if not all(guard.expr.xreplace(sizes) == True for guard in late):  # noqa: E712 -- of sympy, which may know neither
            return False
        self._known[self._shape] = len(guards)
        return True

    @cached_property
    def description(self) -> str | None:
        """Of all that is traced: operations, arguments, and what torch._dynamo knows of their sizes.

        None: it does not say everything, or code outside torch is called, which may be other code in another process.
        """
        try:
            lines = list(_operations(self.gm))
        except NotWhole:
            return None
        for place, x in zip(self._places, self._examples, strict=True):
            if not _is_tensor(x):
                lines.append(f"{place} {x}")
            elif x.layout is torch.strided:
                lines.append(f"{place} {type(x)} {(x.shape, x.stride(), x.dtype, x.device, x.requires_grad)}")
            else:
                return None
        sizes = [(name, size.node.hint, self._ranges.get(name)) for name, size in self.sizes.items()]
        guards = [str(guard.expr) for guard in self.y.fake_mode.shape_env.guards[: self._num_checked]]
        return "\n".join([*lines, str(sizes), str(guards)])

    @property
    def sizes(self) -> dict[str, torch.SymInt]:
        """The sizes that may change from call to call, by their names."""
        shapes = [example.shape for example in self._examples if _is_tensor(example)]
        return {str(size.node.expr): size for shape in shapes for size in shape if isinstance(size, torch.SymInt)}

    def inputs_of(self, arguments: Any) -> tuple[Any, ...]:
        """Of the arguments of the graph, those that stand for tensors that the vector field uses."""
        return tuple(argument for argument, is_input in zip(arguments, self._is_input, strict=True) if is_input)

    def slope(self, inputs: Any) -> Slope:
        """The vector field with these tensors in the places of its own."""

        def evaluate(t: Tensor, y: Tensor) -> Tensor:
            rest = iter(inputs)
            tensors = [
                next(rest) if is_input else t if place == "L['t']" else y
                for place, is_input in zip(self._places, self._is_input, strict=True)
            ]
            arguments: list[Any] = list(tensors)
            for i, (k, dim) in self._sizes.items():
                arguments[i] = tensors[k].shape[dim]
            dy: Tensor = self._run(arguments)
            return dy if dy.dtype == y.dtype else dy.to(y.dtype)

        return evaluate

    def _run(self, arguments: list[Any]) -> Tensor:
        """What the graph returns; derivatives that it takes itself are 0 unless gradients are enabled, as they were."""
        if not self._differentiates or torch.is_grad_enabled():
            result: Tensor = self.gm(*arguments)[0]
            return result
        with torch.enable_grad():
            result = self.gm(*arguments)[0]
        return result.detach()

    def _size(self, number: Any) -> tuple[int, int]:
        """Where a size that the graph asks for is found: which argument, which dimension."""
        for k, example in enumerate(self._examples):
            for dim, size in enumerate(example.shape if _is_tensor(example) else ()):
                symbols = [value.node.expr for value in (size, number) if isinstance(value, torch.SymInt)]
                if len(symbols) == 2 and symbols[0] == symbols[1]:
                    return k, dim
        raise NotWhole("it uses a number that changes from solve to solve")


def num_numbers(tensor: Tensor) -> int:
    """In a stand-in, with the batch size of the first solve."""
    return math.prod(size.node.hint if isinstance(size, torch.SymInt) else size for size in tensor.shape)


def _getter(part: str) -> Callable[[Any], Any]:
    return attrgetter(part[1:]) if part[0] == "." else itemgetter(literal_eval(part[1:-1]))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _operations(gm: GraphModule) -> Iterator[str]:
    """A line for each.

    Raises:
        NotWhole: a line would not say everything.
    """
    for node in gm.graph.nodes:
        name = node.target
        if node.op == "get_attr":
            part = attrgetter(name)(gm)
            if not isinstance(part, GraphModule):
                raise NotWhole("it has a tensor of its own")
            yield from _operations(part)
        elif node.op == "call_function":
            name = _name_of(node.target)
        elif node.op == "call_module":
            raise NotWhole("it calls a module")
        line = f"{node.op} {node.name} {name} {node.args} {node.kwargs}"
        if " at 0x" in line:
            raise NotWhole("it uses an object that text does not describe")
        yield line


def _name_of(function: Any) -> str:
    """Of a function of torch's or Python's own."""
    if isinstance(function, torch._ops.HigherOrderOperator):
        name, is_own = str(function), type(function).__module__.split(".")[0] == "torch"
    elif isinstance(function, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)):
        name, is_own = str(function), str(function).split(".")[0] in ("aten", "prims")
    else:
        module, own_name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        name = torch.overrides.resolve_name(function) or f"{module}.{own_name}"
        is_own = name.split(".")[0] in _OWN_NAMES and _called(name) is function  # others may bear its name
    if not is_own:
        raise NotWhole(f"{name} is neither torch's nor Python's")
    return name


def _called(name: str) -> Any:
    """What is called so."""
    first, *rest = name.split(".")
    found: Any = sys.modules.get(first)
    for part in rest:
        found = getattr(found, part, None)
    return found
