"""Which tensors a vector field uses beside its time and state: found by watching it, so that none is missed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from node_cli.ode.compilation import outside_compilation
from node_cli.ode.gradients.known import SideOutputs
from node_cli.ode.gradients.same_field import restored
from node_cli.ode.states import require_slope
from node_cli.ode.vector_field import asks_for_graph, with_graph

log = logging.getLogger(__name__)


class WatchedVectorField:
    """A vector field whose first evaluation is watched, with its graph: `inputs` are the tensors with gradients that it
    uses, `written` those that it writes into (running means).

    These are the parameters of a module, used or not, and whatever else takes part in an operation without having been
    made by one: tensors that a closure holds, or that were set as attributes; before them all, those that are `known`.
    `first` is what is evaluated then: the same vector field, but one that can be watched. With `keep_watching`,
    evaluations are watched until a tensor is found.

    `leaves` stand for the inputs in the graph of an evaluation. An input that was computed from others, or has hooks,
    is replaced by a leaf of its own there: its graph and hooks are for the sum of its gradients.
    """

    def __init__(
        self,
        vector_field: Callable[[Any, Any], Any],
        first: Callable[[Any, Any], Any] | None = None,
        *,
        keep_watching: bool = False,
        known: Sequence[Tensor] = (),
    ) -> None:
        self._vector_field = vector_field
        self._first = vector_field if first is None else first  # what torch.compile makes has no truth value
        self._is_watching = True
        self._keep_watching = keep_watching
        self._substitutes: dict[int, Tensor] = {}
        self._found: dict[int, Tensor] = {}
        self._add(p for p in known if p.requires_grad)
        self.written: tuple[Tensor, ...] = ()
        self.side = SideOutputs()
        self.last: Evaluation | None = None
        self._without_graph: Callable[[Any, Any], Any] = self._plain
        if isinstance(self._first, nn.Module):
            self._add(p for p in self._first.parameters() if p.requires_grad)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Parameters first, then the others in the order of their use."""
        return tuple(self._found.values())

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """What stands for each input in the graph of an evaluation."""
        return tuple(self._substitutes.get(key, tensor) for key, tensor in self._found.items())

    @property
    def replaced(self) -> set[Any]:
        """The node that made each input that a leaf stands for; of a leaf with hooks, its id."""
        found = (self._found[key] for key in self._substitutes)
        return {id(tensor) if tensor.grad_fn is None else tensor.grad_fn for tensor in found}

    @property
    def is_watching(self) -> bool:
        """Whether the next evaluation is watched."""
        return self._is_watching

    def __call__(self, t: Any, y: Any) -> Any:
        """The slope; without a graph, it is remembered as the `last` one."""
        if torch.is_grad_enabled():
            return self._watched(t, y) if self._is_watching else self._plain(t, y)
        evaluate: Callable[[Any, Any], Any] = self.like_first if self._is_watching else self._without_graph
        try:
            dy = evaluate(t, y)
        except RuntimeError as error:
            if not asks_for_graph(error):
                raise
            self._without_graph = evaluate = with_graph(self._plain)
            dy = evaluate(t, y)
        self.last = Evaluation(evaluate, t, y, dy)
        return dy

    def stop_watching(self) -> None:
        """The solve is over: what was not found by now is refused where a gradient comes to it."""
        self._is_watching = False
        if self.last is not None:  # whose tensors may be written into from now on
            self.last = self.last.copied()

    def like_first(self, t: Any, y: Any) -> Any:
        """The slope without a graph, computed as the first one is: with one."""
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            return (self._watched(t, y) if self._is_watching else self._first(t, y)).detach()

    def _plain(self, t: Any, y: Any) -> Any:
        return _evaluate(self._first if self._substitutes else self._vector_field, self._substitutes, t, y)

    def _watched(self, t: Any, y: Any) -> Any:
        watch = _Watch((t, y))
        with watch:
            dy = self._first(t, y)
        require_slope(dy)
        self._add(watch.found_in(dy))
        self.written = (*self.written, *watch.written)
        self.side.guard(watch.made)
        self._is_watching = self._keep_watching and not self._found
        if self._substitutes and self._first is not self._vector_field:
            _say_that_nothing_is_compiled()
        if not self._substitutes:
            return dy
        with restored(self.written):
            return _evaluate(self._first, self._substitutes, t, y)

    def with_inputs(self, others: Sequence[Tensor]) -> Callable[[Any, Any], Any]:
        """The vector field with other tensors in the places of its inputs."""
        substitutes = dict(zip(self._found, others, strict=True))
        return lambda t, y: _evaluate(self._first, substitutes, t, y)

    def _add(self, tensors: Any) -> None:
        for tensor in tensors:
            self._found[id(tensor)] = tensor
            if tensor.grad_fn is not None or tensor._backward_hooks:
                self._substitutes[id(tensor)] = tensor.detach().requires_grad_()


class Evaluation(NamedTuple):
    """One evaluation without a graph, and the function that makes it again in the same way."""

    evaluate: Callable[[Any, Any], Any]
    t: Tensor
    y: Tensor
    dy: Tensor

    def copied(self) -> Evaluation:
        """The same with tensors of its own."""
        return Evaluation(self.evaluate, self.t.clone(), self.y.clone(), self.dy.clone())


@cache
def _say_that_nothing_is_compiled() -> None:
    """Once: a compiled function looks no tensor up, so none can be put in another's place."""
    log.warning(
        'compile="vector_field" has no effect where the vector field uses a tensor that was computed from others, or a '
        "parameter with hooks"
    )


def _evaluate(vector_field: Callable[[Any, Any], Any], substitutes: dict[int, Tensor], t: Any, y: Any) -> Any:
    if not substitutes:
        return vector_field(t, y)
    with _Substitute(substitutes) as substitute:
        return tree_map(substitute.of, vector_field(t, y))


class _Watch(TorchDispatchMode):
    """Sees every operation with its tensors, below autograd, where they are still the same objects."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self._found: dict[int, Tensor] = {}
        self._made = {id(tensor): tensor for tensor in _tensors_in(given)}  # kept, so that no id is given twice
        self._storages: set[int] = set()  # of tensors from outside
        self._written: dict[int, Tensor] = {}

    @property
    def made(self) -> list[Tensor]:
        """What came out of the operations."""
        return list(self._made.values())

    @property
    def written(self) -> list[Tensor]:
        """What came from outside, or is a view of it, and was written into."""
        return list(self._written.values())

    def found_in(self, result: Tensor) -> list[Tensor]:
        """What was used, and what is returned as it was."""
        self._look_at((result,))
        return list(self._found.values())

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch need not keep its compiler out of the method below, and so import it: that is done there."""
        return False

    @outside_compilation
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._look_at((args, kwargs))
        for value in _tensors_in([args[i] if i < len(args) else kwargs.get(name) for i, name in _written_by(func)]):
            if _storage_of(value) in self._storages:
                self._written[id(value)] = value
        result = func(*args, **kwargs)
        self._made |= {id(value): value for value in _tensors_in((result,))}
        return result

    def _look_at(self, values: Any) -> None:
        for value in _tensors_in(values):
            if id(value) not in self._made:
                self._storages.add(_storage_of(value))
                if value.requires_grad:
                    self._found[id(value)] = value


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among arguments or results of an operation, also in sequences."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors_in(value)
        elif isinstance(value, dict):
            yield from _tensors_in(value.values())


@cache
def _written_by(func: Any) -> tuple[tuple[int, str], ...]:
    """Places and names of the arguments that an operation writes into; those of batch norm do not say so."""
    undeclared = (3, 4) if "batch_norm" in func.name() else ()
    return tuple(
        (i, argument.name)
        for i, argument in enumerate(func._schema.arguments)
        if i in undeclared or (argument.alias_info is not None and argument.alias_info.is_write)
    )


def _storage_of(tensor: Tensor) -> int:
    """Which memory a tensor lies in; 0 for one that has none of its own."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else 0


class _Substitute(TorchFunctionMode):
    """Puts other tensors in the places of some, in every operation."""

    def __init__(self, substitutes: dict[int, Tensor]) -> None:
        super().__init__()
        self._substitutes = substitutes

    def of(self, value: Any) -> Any:
        """What stands for a value, which may be the value itself."""
        return self._substitutes.get(id(value), value)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*tree_map(self.of, args), **tree_map(self.of, kwargs or {}))
