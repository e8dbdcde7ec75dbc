"""A vector field as a graph of operations, found and guarded by torch._dynamo: what `compile=solve` is made of."""

from __future__ import annotations

import logging
import re
from ast import literal_eval
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, lru_cache
from operator import attrgetter, itemgetter
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from node_cli.ode.compilation import NUM_KEPT, can_compile, with_own_code
from node_cli.ode.graphs.lowering import NotWhole, OtherSize
from node_cli.ode.states import as_column, keep_autocast
from node_cli.ode.stepping import Slope

log = logging.getLogger(__name__)
FEW_OPERATIONS = 32
_PART = re.compile(r"\.[A-Za-z_]\w*|\['[^'\\]*'\]|\[\d+\]")  # of a name: an attribute or an item


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


def _getter(part: str) -> Callable[[Any], Any]:
    return attrgetter(part[1:]) if part[0] == "." else itemgetter(literal_eval(part[1:-1]))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


class Capture:
    """Finds the graph of one vector field, under the autocast of this moment, and the tensors that it uses by now.

    `reason` says why there is none. What a graph rests on (modes, numbers, shapes) is checked at each call.
    """

    def __init__(self, vector_field: Slope, device_type: str) -> None:
        field = keep_autocast(vector_field, device_type)

        def call(t: Tensor, y: Tensor) -> Tensor:
            return field(t, y)

        self.reason: str | None = None
        self._device_type = device_type
        self._field = field
        self._found: tuple[FieldGraph, tuple[Any, ...]] | None = None
        self._last: tuple[Any, FieldGraph, Callable[[dict[str, Any]], tuple[Any, ...]]] | None = None
        self._function = with_own_code(call)
        self._call = torch.compile(self._function, backend=self._backend, fullgraph=True)

    def __call__(self, y0: Tensor, *, by_sample: bool) -> tuple[FieldGraph, tuple[Tensor, ...]] | None:
        """The graph and its inputs for a solve from `y0`, perhaps with a time for each sample.

        None, and one line in the log, where there is none.
        """
        if self.reason is not None:
            return None
        is_plain = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        stand_ins = self._stand_ins(y0.shape, y0.dtype, y0.device, by_sample)
        with nullcontext() if is_plain else _with_gradients():
            found = self._as_before(*stand_ins) or self._anew(*stand_ins)
        if found is not None and not found[0].holds_for(tuple(y0.shape)):
            _say_that_a_step_is_compiled(tuple(y0.shape))
            return None
        return found

    def _anew(self, t: Tensor, y: Tensor) -> tuple[FieldGraph, tuple[Any, ...]] | None:
        """By torch._dynamo, which finds the graph or checks that it still holds."""
        try:
            self._call(t, y)
        except Exception as error:  # what a compiler stumbles over has no common class
            self.refuse(error)
            return None
        found, self._found = self._found, None
        if found is None:
            self.refuse(NotWhole("nothing of it can be compiled"))
            return None
        graph, inputs = found[0], found[0].inputs_of(found[1])
        entries, read = _entries(self._function), graph.reader
        self._last = (entries[0].guard_manager, graph, read) if len(entries) == 1 and read is not None else None
        return graph, inputs

    def _as_before(self, t: Tensor, y: Tensor) -> tuple[FieldGraph, tuple[Any, ...]] | None:
        """The same by the guards alone, in half of the time, where there is one graph; None: ask torch._dynamo."""
        if self._last is None:
            return None
        guards, graph, read = self._last
        scope = {"t": t, "y": y, "field": self._field}
        if guards.cache_entry is None or not guards.check(scope):  # None: something that it guards is gone
            return None
        return graph, read(scope)

    @staticmethod
    @lru_cache(maxsize=NUM_KEPT)
    def _stand_ins(shape: torch.Size, dtype: torch.dtype, device: torch.device, by_sample: bool) -> list[Tensor]:
        """A time, or one for each sample, and a state."""
        y = torch.empty(shape, dtype=dtype, device=device, requires_grad=True)
        t = as_column(y.new_empty(shape[:1] if by_sample else ()), y)
        for tensor in (t, y):
            if tensor.dim() and len(tensor) > 1:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return [t, y]

    def is_whole(self, graph: FieldGraph, require: Callable[[], None]) -> bool:
        """Whether an evaluation is all in the graph, by what `require` raises; from then on the graph knows."""
        try:
            require()
        except Exception as error:  # see above
            self.refuse(error)
            return False
        graph.is_whole = True
        return True

    def refuse(self, error: Exception) -> None:
        """Says once why the vector field is not compiled as a whole, or not for a size."""
        if isinstance(error, OtherSize):  # by now the guards tell; see `holds_for`
            return
        if self.reason is not None:
            return
        if not can_compile(self._device_type):  # which says why; trying it first would make every start slower
            self.reason = "nothing can be compiled"
            return
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        self.reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        log.warning("compile=solve cannot compile this vector field as a whole, so step is taken: %s", self.reason)

    def _backend(self, gm: GraphModule, _: Any) -> Callable[..., tuple[Any, ...]]:
        graph = FieldGraph(gm)

        def run(*arguments: Any) -> tuple[Any, ...]:
            self._found = graph, arguments
            return (arguments[0],)

        return run


def _entries(function: Any) -> list[Any]:
    """What torch._dynamo keeps of a function: a graph and its guards each; nothing where torch does not say."""
    entries_of: Any = getattr(torch._C._dynamo.eval_frame, "_debug_get_cache_entry_list", lambda code: [])
    return list(entries_of(function.__code__))


@contextmanager
def _with_gradients() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


@lru_cache(maxsize=NUM_KEPT)
def _say_that_a_step_is_compiled(shape: tuple[int, ...]) -> None:
    log.warning("compile=solve has compiled for other sizes than a state of shape %s, so step is taken", shape)


@lru_cache(maxsize=NUM_KEPT)
def capture_of(vector_field: Slope, device_type: str, autocast: torch.dtype | None) -> Capture | None:
    """What finds the graph of a vector field, under the autocast of this moment (None: none); None: nothing does."""
    try:
        return Capture(vector_field, device_type)
    except RuntimeError:  # torch.compile does not know this Python
        can_compile(device_type)
        return None
