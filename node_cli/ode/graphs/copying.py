"""Parts of a graph that are copied into it while it is traced: tracing takes longer than all that follows from a cache.

Only where nothing is differentiated across the part; elsewhere, and outside a trace, the part is simply run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node


def inlined(part: GraphModule, arguments: Sequence[Any]) -> Sequence[Tensor]:
    """What the part returns for these tensors and sizes; it was traced for arguments of the same sizes."""
    tracer, given = _tracer(), part.graph.find_nodes(op="placeholder")
    nodes = [] if tracer is None else [_node_of(argument, tracer) for argument in arguments]
    if tracer is None or None in nodes or part.graph.find_nodes(op="get_attr"):
        results: Sequence[Tensor] = part(*arguments)
        return results
    body = [node for node in part.graph.nodes if node.op not in ("placeholder", "output")]
    returned: Any = part.graph.output_node().args[0]
    found = iter(_copied(tracer, body, dict(zip(given, nodes, strict=True)), [x for x in returned if x not in given]))
    return [arguments[given.index(node)] if node in given else next(found) for node in returned]


class Repeated:
    """A function of tensors that is traced once, and copied for other ones of the same sizes.

    It may use other tensors, which stay the same, but not its arguments by another way.
    """

    def __init__(self, function: Callable[..., list[Tensor]]) -> None:
        self._function = function
        self._first: tuple[Any, list[Any], list[Any], list[Node], list[Node]] | None = None

    def __call__(self, *arguments: Tensor) -> list[Tensor]:
        """What the function returns."""
        tracer, kinds = _tracer(), [_kind(argument) for argument in arguments]
        nodes = [] if tracer is None else [_node_of(argument, tracer) for argument in arguments]
        if tracer is None or None in nodes:
            return self._function(*arguments)
        if self._first is not None and self._first[0] is tracer and self._first[1] == kinds:
            _, _, given, body, returned = self._first
            return _copied(tracer, body, dict(zip(given, nodes, strict=True)), returned)
        before = len(tracer.graph.nodes)
        results = self._function(*arguments)
        returned = [_node_of(result, tracer) for result in results]
        body = list(tracer.graph.nodes)[before:]
        has_own_sizes = any(node.meta.get("unbacked_bindings") for node in body)  # by what it computes
        if len(set(nodes)) == len(nodes) and None not in returned and not has_own_sizes:
            self._first = tracer, kinds, nodes, body, returned
        return results


def _copied(tracer: Any, body: Iterable[Node], copies: dict[Node, Any], returned: Iterable[Node]) -> list[Tensor]:
    """Tensors that stand for what is `returned`, by a body with `copies` in place of what it was given."""
    from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, track_tensor_tree

    for node in body:
        copies[node] = tracer.graph.node_copy(node, lambda other: copies.get(other, other))
    results = []
    for node in returned:
        with disable_proxy_modes_tracing():
            result = node.meta["val"].detach()
        proxy = torch.fx.Proxy(copies.get(node, node), tracer)
        results.append(track_tensor_tree(result, proxy, constant=None, tracer=tracer))
    return results


def _tracer() -> Any:
    """What a graph is being traced by; None where it is not, or where autograd looks on."""
    from torch.fx.experimental.proxy_tensor import get_proxy_mode

    mode = get_proxy_mode()
    return None if mode is None or torch.is_grad_enabled() else mode.tracer


def _node_of(value: Any, tracer: Any) -> Any:
    """The node of a tensor or a size that may change; a size that is a number, itself; None: there is none."""
    from torch.fx.experimental.proxy_tensor import get_proxy_slot

    if type(value) is int:
        return value
    found: Any = get_proxy_slot(value, tracer, None)
    if found is None:
        return None
    return found.proxy.node if isinstance(value, Tensor) else found.force().node


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(map(str, tensor.shape)), tuple(map(str, tensor.stride())), tensor.dtype
