"""Stand-ins for the arguments of compiled functions: one solve's state, times, tolerances and inputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from node_cli.ode.graphs.beside import Work
from node_cli.ode.graphs.cuda_graphs import Replayed
from node_cli.ode.graphs.field_graph import FieldGraph
from node_cli.ode.graphs.lowering import OtherSize, lowered, sizes_of, traced
from node_cli.ode.graphs.remembered import compiled_earlier, key_of, recall, remember
from node_cli.ode.states import as_column

log = logging.getLogger(__name__)

Run = Callable[[list[Any]], Sequence[Tensor]]  # empties the list that it is given
Source = tuple[Callable[..., Any], Callable[[], list[Any]]]  # a function, and examples of its arguments but the inputs


class Examples:
    """Of solves of one vector field; `by_sample`, each sample has a time of its own."""

    def __init__(self, field: FieldGraph, *, by_sample: bool) -> None:
        self.field = field
        self.by_sample = by_sample

    def compiled(self, source: Source, meanwhile: Work | None, what: str | None) -> Run:
        """The function compiled for arguments like its examples and, at the end, the inputs; see `lowered`.

        It depends on `what` and the vector field alone; None: that cannot be said.
        """
        function, examples = source
        y, start, key = self.field.y, time.perf_counter(), key_of(self.field, what)
        found = compiled_earlier(key, self.field)
        if found is not None:
            log.info(
                "found %s of the solve, compiled earlier, in %.1f s", function.__name__, time.perf_counter() - start
            )
            return found
        with y.fake_mode, torch.no_grad():
            arguments = [*examples(), *self.field.inputs]
        sizes = {str(arguments[i].shape[dim].node.expr): (i, dim) for i, dim in sizes_of(arguments)}
        run = lowered(
            function, arguments, y.fake_mode, y.device.type, writes_out=self.field.is_short, meanwhile=meanwhile
        )
        if run.graph is not None and all(name in self.field.sizes for name in sizes):  # none was fixed meanwhile
            remember(key, {"graph": run.graph, "sizes": sizes})
        return Replayed(run, function.__name__) if y.device.type == "cuda" else run

    def require_size(self) -> None:
        """Raises OtherSize where what was compiled by now is not right for the state of this solve."""
        if not self.field.holds():
            raise OtherSize

    def require_whole(self) -> None:
        """Traces an evaluation, whose operations are counted, and compiles nothing; once for all processes.

        Raises:
            NotWhole: it is not all in the graph.
        """
        key = key_of(self.field, f"an evaluation {self.by_sample}")
        number = recall(key).get("operations")
        if not isinstance(number, int):
            number = self._num_operations()
            remember(key, {"operations": number})
        self.field.num_operations = number

    def _num_operations(self) -> int:
        y = self.field.y
        with y.fake_mode, torch.no_grad():
            arguments = [self.y(), *self.field.inputs]

        def evaluation(y: Tensor, *inputs: Tensor) -> tuple[Tensor]:
            t = self.exact().to(y.dtype)
            return (self.field.slope(inputs)(as_column(t, y), y),)

        graph = traced(evaluation, arguments, y.fake_mode).graph
        return len(graph.nodes) - len(graph.find_nodes(op="placeholder")) - 1

    def y(self) -> Tensor:
        """A state."""
        y = self.field.y
        return torch.empty(y.shape, dtype=y.dtype, device=y.device)

    def like_y(self, shape: Sequence[Any]) -> Tensor:
        """A tolerance, say."""
        return torch.empty(tuple(shape), dtype=self.field.y.dtype, device=self.field.y.device)

    def exact(self, *shape: Any) -> Tensor:
        """So many times in float64, of all samples or of each: `shape`, or `(*shape, batch)`."""
        own = self.field.y.shape[:1] if self.by_sample else ()
        return torch.empty((*shape, *own), dtype=torch.float64, device=self.field.y.device)

    def times(self) -> Tensor:
        """Any number of output times."""
        return self.exact(self._count)

    @cached_property
    def _count(self) -> Any:
        """One for all, so that the compiler's cache knows a graph again whatever was traced before."""
        shape_env = self.field.y.fake_mode.shape_env
        with shape_env.ignore_fresh_unbacked_symbols():
            count: Any = shape_env.create_unbacked_symint()
        torch._check(count >= 2)
        return count

    def rows(self, num_steps: int, num_rows: int) -> Tensor:
        """Of so many steps; see `places.py`."""
        shape = list(self.field.y.shape)
        shape.insert(int(self.by_sample), num_rows)
        return self.like_y([num_steps, *shape])
