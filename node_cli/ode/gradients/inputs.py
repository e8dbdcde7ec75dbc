"""Which tensors a vector field uses beside its time and state: found by watching it, so that none is missed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class WatchedVectorField:
    """A vector field whose first evaluation is watched: `inputs` are the tensors with gradients that it uses.

    These are the parameters of a module, used or not, and whatever else takes part in an operation without having been
    made by one: tensors that a closure holds, or that were set as attributes. `first` is what is evaluated then: the
    same vector field, but one that can be watched.
    """

    def __init__(self, vector_field: Callable[[Any, Any], Any], first: Callable[[Any, Any], Any] | None = None) -> None:
        self._vector_field = vector_field
        self._first = first or vector_field
        self._was_watched = False
        self._found: dict[int, Tensor] = {}
        if isinstance(vector_field, nn.Module):
            self._found = {id(p): p for p in vector_field.parameters() if p.requires_grad}

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Parameters first, then the others in the order of their use."""
        return tuple(self._found.values())

    def __call__(self, t: Any, y: Any) -> Any:
        """The slope."""
        if self._was_watched:
            return self._vector_field(t, y)
        self._was_watched = True
        watch = _Watch((t, y))
        with watch:
            dy = self._first(t, y)
        self._found |= watch.found
        return dy


class _Watch(TorchDispatchMode):
    """Sees every operation with its tensors, below autograd, where they are still the same objects."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.found: dict[int, Tensor] = {}
        self._made = {id(tensor): tensor for tensor in tree_iter(given)}  # kept, so that no id is given twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_iter((args, kwargs)):
            if isinstance(value, Tensor) and value.requires_grad and id(value) not in self._made:
                self.found[id(value)] = value
        result = func(*args, **(kwargs or {}))
        self._made |= {id(value): value for value in tree_iter(result) if isinstance(value, Tensor)}
        return result


class KnownInputs:
    """Checks that an evaluation depends on nothing but what is known, so that no gradient is silently missed."""

    def __init__(self, *inputs: Tensor) -> None:
        self._leaves = {id(tensor) for tensor in inputs if tensor.grad_fn is None}
        self._nodes = {tensor.grad_fn for tensor in inputs if tensor.grad_fn is not None}

    def check(self, dy: Tensor, *own: Tensor) -> None:
        """Walks the graph of `dy` back to `own`, the leaves of the evaluation, and to the known inputs.

        Raises:
            ValueError: the graph ends in another tensor.
        """
        leaves = self._leaves | {id(tensor) for tensor in own}
        seen, waiting = set(self._nodes), [dy.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            variable = getattr(node, "variable", None)  # only a leaf's node has one
            if variable is None:
                waiting.extend(next_node for next_node, _ in node.next_functions)
            elif id(variable) not in leaves:
                raise ValueError(
                    f"the vector field uses a tensor with gradient, of shape {tuple(variable.shape)}, that its first "
                    "evaluation did not use: make it a parameter of the module, or use it (times zero) at every time"
                )
