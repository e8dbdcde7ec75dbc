"""What the graph of an evaluation may hold, so that no part of a gradient is silently missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.autograd.graph import Node


class SideOutputs:
    """Tensors that the first evaluation leaves behind with its graph: a gradient that comes through them is refused.

    What depends on them depends on the states too, but no graph leads there: that part would be missed silently.
    """

    def __init__(self) -> None:
        self._is_open = False

    def guard(self, tensors: Sequence[Tensor]) -> None:
        """Refuses gradients that come through these from now on."""
        for tensor in tensors:
            if tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(self._refuse)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Lets gradients through, as those of the evaluation itself."""
        self._is_open = True
        try:
            yield
        finally:
            self._is_open = False

    def _refuse(self, _: Any) -> None:
        if not self._is_open:
            raise ValueError(
                "a gradient flows through a tensor that an evaluation of the vector field left behind: the part of it "
                "that flows through the states would be missed. Make a penalty part of the state (and its rate part of "
                "the slope), compute a weight that is reused before the solve, and detach() what is kept for inspection"
            )


class KnownInputs:
    """Checks that an evaluation depends on nothing but what is known, so that no gradient is silently missed.

    `replaced` are the nodes of tensors that some of the `leaves` stand for, and the ids of those that have none.

    Raises:
        ValueError: a leaf no longer asks for a gradient.
    """

    def __init__(self, leaves: tuple[Tensor, ...], replaced: set[Any], side: SideOutputs) -> None:
        frozen = [tuple(leaf.shape) for leaf in leaves if not leaf.requires_grad]
        if frozen:
            raise ValueError(
                f"a tensor of shape {frozen[0]} that the vector field uses was frozen after the solve "
                "(requires_grad_(False)): call backward() before that, or freeze it before the solve"
            )
        self._leaves = {id(leaf) for leaf in leaves}
        self._nodes: set[Node] = set()  # where graphs end in one of the leaves
        self._replaced = replaced
        self.side = side

    def check(self, node: Node | None, *own: Tensor) -> None:
        """Walks the graph of an evaluation from `node` back to its `own` leaves and to the known ones.

        Raises:
            ValueError: the graph ends in another tensor.
        """
        own_leaves = [id(leaf) for leaf in own]
        seen: set[Node | None] = {None, *self._nodes}
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            assert node is not None
            seen.add(node)
            following = node.next_functions
            variable = None if following else getattr(node, "variable", None)  # only a leaf's node has one
            if self._replaced and (node in self._replaced or id(variable) in self._replaced):
                raise ValueError(
                    "the vector field uses a tensor that was computed before the solve, or a parameter with hooks, "
                    "inside a torch.autograd.Function, where it cannot be replaced: compute the tensor in the vector "
                    "field, or remove the hooks"
                )
            if variable is None:
                waiting.extend([next_node for next_node, _ in following])
            elif id(variable) in self._leaves:
                self._nodes.add(node)
            elif id(variable) not in own_leaves:
                raise ValueError(
                    f"the vector field uses a tensor with gradient, of shape {tuple(variable.shape)}, that its first "
                    "evaluation did not use: make it a parameter of the module, use it (times zero) at every time, or, "
                    "where it was used to compute a tensor before the solve, compute that tensor in the vector field"
                )
