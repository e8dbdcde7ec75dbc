"""A step as two graphs: forwards, with what its gradient needs of it, and backwards from that."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from node_cli.ode.graphs.copying import inlined
from node_cli.ode.graphs.examples import Examples
from node_cli.ode.graphs.field_graph import num_numbers
from node_cli.ode.graphs.lowering import NotWhole, sizes_of, traced
from node_cli.ode.stepping import plain_stages
from node_cli.ode.tableaus import Tableau

aten = torch.ops.aten
# What takes too long to be computed again: products, and functions that are no polynomials.
HEAVY = {
    *(aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.convolution.default),
    *(aten.tanh.default, aten.sigmoid.default, aten.exp.default, aten.log.default, aten.log1p.default),
    *(aten.sin.default, aten.cos.default, aten.erf.default, aten.expm1.default),
}


class SplitStep:
    """A step of one method, at times that all samples share; `num_kept` tensors go from one graph to the other.

    With `has_rows` there are cotangents of all stages; else of the last one, where it is the first one of the next
    step. A minimal cut of the graph says what is kept: what costs little is computed again.

    Raises:
        NotWhole: it cannot be split.
    """

    def __init__(self, examples: Examples, tableau: Tableau, *, has_rows: bool) -> None:
        self._field = examples.field
        self._tableau = tableau
        self._num_grad_stages = tableau.num_stages if has_rows else int(tableau.is_fsal)
        with examples.field.y.fake_mode, torch.no_grad():
            states = [examples.y() for _ in range(1 + tableau.is_fsal)]
            self._num_cotangents = 1 + self._num_grad_stages
            cotangents = [examples.y() for _ in range(self._num_cotangents)]
            arguments = [examples.exact(), examples.exact(), *states, *examples.field.inputs, *cotangents]
        self._sizes = sizes_of(arguments)
        graph = traced(self._joint, arguments, examples.field.y.fake_mode)
        self._forward, self._backward, self._values = self._cut(graph)
        groups: dict[Any, list[int]] = {}  # of one shape each: fewer tensors
        for i, value in enumerate(self._values):
            groups.setdefault((tuple(map(str, value.shape)), value.dtype), []).append(i)
        self._groups = list(groups.values())
        self.num_kept = len(self._groups)
        graphs = f"{self._forward.code} {self._backward.code} {self._groups}"
        self.digest = hashlib.sha256(graphs.encode()).hexdigest()
        self.num_bytes = sum(num_numbers(value) * value.element_size() for value in self._values)

    def forward(
        self, t0: Tensor, t1: Tensor, y: Tensor, slope: Tensor, inputs: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The state at `t1`, the stages, and what is kept."""
        is_fsal, num_stages = self._tableau.is_fsal, self._tableau.num_stages
        y1, *more = inlined(self._forward, self._with_sizes([t0, t1, y, *([slope] if is_fsal else []), *inputs]))
        stages = [*([slope] if is_fsal else []), *more[: num_stages - is_fsal]]
        kept = more[num_stages - is_fsal :]
        return y1, stages, [torch.stack([kept[i] for i in group]) for group in self._groups]

    def backward(
        self,
        t0: Tensor,
        t1: Tensor,
        y: Tensor,
        y1: Tensor,
        kept: Sequence[Tensor],
        inputs: Sequence[Tensor],
        grad_y1: Tensor,
        grad_stages: Sequence[Tensor],
    ) -> list[Tensor]:
        """The cotangents of the state, of its slope where the method shares the last stage, and of the inputs."""
        own: dict[int, Tensor] = {}
        for group, tensor in zip(self._groups, kept, strict=True):
            own.update(zip(group, tensor.unbind(), strict=True))
        given = [*self._with_sizes([t0, t1, y, *inputs]), y1, *(own[i] for i in range(len(own)))]
        given += [grad_y1, *grad_stages[len(grad_stages) - self._num_grad_stages :]]
        return list(inlined(self._backward, given))

    def like_kept(self) -> list[Tensor]:
        """Stand-ins for what is kept of a step."""
        like = [(len(group), self._values[group[0]]) for group in self._groups]
        return [torch.empty((n, *value.shape), dtype=value.dtype, device=value.device) for n, value in like]

    def _with_sizes(self, arguments: list[Any]) -> list[Any]:
        return [*(arguments[i].shape[dim] for i, dim in self._sizes), *arguments]

    def _joint(self, t0: Tensor, t1: Tensor, y: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        """The step and its gradient."""
        more, cotangents = more[: -self._num_cotangents], more[-self._num_cotangents :]
        inputs = [
            tensor.detach().requires_grad_(like.requires_grad)
            for tensor, like in zip(more[self._tableau.is_fsal :], self._field.inputs, strict=True)
        ]
        slope_at = self._field.slope(inputs)
        with torch.enable_grad():
            y = y.detach().requires_grad_()
            slope = more[0].detach().requires_grad_() if self._tableau.is_fsal else slope_at(t0.to(y.dtype), y)
            y1, stages = plain_stages(self._tableau, slope_at)(t0, t1, y, slope)
            wanted = [y, *([slope] if self._tableau.is_fsal else []), *(x for x in inputs if x.requires_grad)]
            results = [y1, *stages[len(stages) - self._num_grad_stages :]]
            grads = torch.autograd.grad(results, wanted, cotangents, allow_unused=True, materialize_grads=True)
        return (y1, *stages[self._tableau.is_fsal :], *grads)

    def _cut(self, traced_step: GraphModule) -> tuple[GraphModule, GraphModule, list[Any]]:
        from torch._functorch.partitioners import min_cut_rematerialization_partition

        num_results = 1 + self._tableau.num_stages - self._tableau.is_fsal
        for node in traced_step.graph.find_nodes(op="call_function", target=aten.detach.default):
            node.replace_all_uses_with(node.args[0])
        for n, node in enumerate(_placeholders(traced_step)[-self._num_cotangents :]):
            node.target = f"tangents_{n}"  # by which the partitioner knows them
            node._rename(node.target)
        traced_step.recompile()
        try:
            _, backward = min_cut_rematerialization_partition(traced_step, None, num_fwd_outputs=num_results)
        except Exception as error:  # what it stumbles over has no common class
            raise NotWhole("its gradient cannot be split") from error
        taken = {node.name for node in _placeholders(backward)}
        graph, given = traced_step.graph, _placeholders(traced_step)
        known, cotangents = given[: -self._num_cotangents], given[-self._num_cotangents :]
        returned: Any = graph.output_node().args[0]
        results, grads = returned[:num_results], returned[num_results:]
        if self._tableau.is_fsal:
            slope = known[len(self._sizes) + 3]
            known_later = [node for node in known if node is not slope]
        else:
            known_later = known
        cheap, kept = {*known_later, results[0]}, []
        for node in graph.nodes:
            is_light = node.op == "call_function" and node.target not in HEAVY
            if is_light and all(each in cheap for each in node.all_input_nodes):
                cheap.add(node)
            elif node.name in taken and node not in cheap and node not in cotangents:
                kept.append(node)
                cheap.add(node)
        forward = _part(traced_step, known, [*results, *kept])
        return (
            forward,
            _part(traced_step, [*known_later, results[0], *kept, *cotangents], list(grads)),
            [node.meta["val"] for node in kept],
        )


def _placeholders(graph: GraphModule) -> list[Node]:
    return graph.graph.find_nodes(op="placeholder")


def _part(whole: GraphModule, given: list[Node], wanted: list[Node]) -> GraphModule:
    """What makes the one of the other."""
    part = Graph()
    copies = {node: part.placeholder(node.name) for node in given}
    needed, waiting = set[Node](), [node for node in wanted if node not in copies]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += [each for each in node.all_input_nodes if each not in copies]
    for node in whole.graph.nodes:
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(tuple(copies[node] for node in wanted))
    return GraphModule(whole, part)
