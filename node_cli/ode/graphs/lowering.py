"""From a function of tensors to machine code: traced with stand-ins for its arguments, then compiled by inductor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from node_cli.ode.graphs.beside import Work, beside
from node_cli.ode.graphs.rewriting import join_products, share_results, write_out_products, write_out_tanh

log = logging.getLogger(__name__)


class NotWhole(Exception):
    """Why something cannot be compiled as a whole."""


class OtherSize(NotWhole):
    """What was compiled took for granted sizes that the state of this solve does not have."""


@dataclass(frozen=True, eq=False)
class Lowered:
    """A function by inductor, which takes a list and empties it; `sizes` are arguments too, see `sizes_of`.

    `graph` is what the compiler's cache calls it, if that has it.
    """

    function: Callable[[list[Any]], Any]
    sizes: list[tuple[int, int]]
    graph: str | None

    @classmethod
    def from_cache(cls, graph: str, sizes: list[tuple[int, int]], values: list[Any], fake_mode: Any) -> Lowered | None:
        """What the cache of a processor's code has by this name for sizes with these values; what they take for granted
        is guarded from now on.
        """
        from torch._guards import TracingContext, tracing
        from torch._inductor import config
        from torch._inductor.codecache import FxGraphCache
        from torch._inductor.output_code import CompiledFxGraphConstants
        from torch._inductor.utils import BoxedBool

        constants = CompiledFxGraphConstants()
        with tracing(TracingContext(fake_mode)), config.patch(cpp_wrapper=True):
            compiled: Any = FxGraphCache.load_with_key(graph, [], values, True, None, False, constants)[0]
            if compiled is None:
                return None
            compiled.post_compile(values, constants, {"cudagraphs": BoxedBool(False), "is_backward": False})
        return cls(_given_tensors_alone(compiled.current_callable), sizes, graph)

    def __call__(self, arguments: list[Any]) -> tuple[Tensor, ...]:
        arguments[:0] = [arguments[i].shape[dim] for i, dim in self.sizes]
        results: tuple[Tensor, ...] = self.function(arguments)
        return results


def _given_tensors_alone(function: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """What a processor's code would make of numbers at each call."""

    def run(arguments: list[Any]) -> Any:
        arguments[:] = [_as_tensor(each) if type(each) is int else each for each in arguments]
        return function(arguments)

    return run


@lru_cache(maxsize=64)
def _as_tensor(size: int) -> Tensor:
    return torch.tensor(size)


def lowered(
    function: Callable[..., Any],
    arguments: list[Any],
    fake_mode: Any,
    device_type: str,
    *,
    writes_out: bool,
    meanwhile: Work | None,
) -> Lowered:
    """The function compiled for arguments like these, which are fake.

    If it `writes_out`, products of small matrices are sums: faster among few operations, slower among many.

    Raises:
        NotWhole: it cannot be traced, or the compiler does not take it.
    """
    from torch._guards import TracingContext, tracing  # only now: importing it takes a second

    log.info("compiling %s of the solve", function.__name__)
    start, is_cpu = time.perf_counter(), device_type == "cpu"
    sizes = sizes_of(arguments)  # before any of them is fixed: the graph takes it all the same
    with tracing(TracingContext(fake_mode)):
        try:
            graph = traced(function, arguments, fake_mode)
            with fake_mode, torch.no_grad():
                share_results(graph)
                join_products(graph)
                if writes_out:
                    write_out_products(graph)
                if is_cpu:
                    write_out_tanh(graph)
            compiled, name = machine_code(graph, is_cpu=is_cpu, meanwhile=meanwhile)
        except NotWhole:
            raise
        except Exception as error:  # what a compiler stumbles over has no common class
            raise NotWhole(f"{function.__name__} cannot be compiled") from error
    log.info("compiled %s in %.1f s", function.__name__, time.perf_counter() - start)
    return Lowered(compiled, sizes, name)


def machine_code(
    graph: GraphModule, *, is_cpu: bool, meanwhile: Work | None
) -> tuple[Callable[[list[Any]], Any], str | None]:
    """The graph by inductor, and what its cache calls it; the function empties the list that it is given.

    For a processor, something else is compiled `meanwhile`, into the compiler's cache, unless the graph is there
    already or there is no cache.
    """
    from torch._dynamo.utils import counters
    from torch._inductor import config
    from torch._inductor.codecache import cache_dir
    from torch._inductor.compile_fx import compile_fx_inner, record_original_output_strides

    output = graph.graph.output_node()
    returned: Any = output.args[0]
    output.meta["user_visible_output_idxs"] = range(len(returned))  # or convolutions choose their strides
    record_original_output_strides(graph)
    examples = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    hits = counters["inductor"]["fxgraph_cache_hit"]
    is_found: Callable[[], bool] = lambda: counters["inductor"]["fxgraph_cache_hit"] > hits  # noqa: E731
    if not is_cpu or not config.fx_graph_cache or config.force_disable_caches:
        meanwhile = None
    with config.patch(cpp_wrapper=is_cpu), beside(meanwhile, cache_dir(), is_useless=is_found):
        compiled: Any = compile_fx_inner(graph, examples, cpp_wrapper=is_cpu, is_inference=True)
    function = compiled.current_callable
    return _given_tensors_alone(function) if is_cpu else function, getattr(compiled, "_fx_graph_cache_key", None)


def traced(function: Callable[..., Any], arguments: list[Any], fake_mode: Any) -> GraphModule:
    """The function as a graph; the sizes that may change come before its arguments.

    Raises:
        NotWhole: it draws random numbers, or writes into what it is given.
    """
    from torch._dispatch.python import enable_python_dispatcher
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    sizes = sizes_of(arguments)
    # Sizes are arguments too: only so does the compiler's cache keep what it takes for granted of them.
    arguments = [*(arguments[i].shape[dim] for i, dim in sizes), *arguments]

    def sized(*arguments: Any) -> Any:
        return function(*arguments[len(sizes) :])

    with fake_mode, enable_python_dispatcher(), torch.no_grad():
        graph = make_fx(sized, decomposition_table=select_decomp_table())(*arguments)
        if any(_is_mutable(node) for node in graph.graph.nodes):
            graph = make_fx(torch.func.functionalize(graph))(*arguments)
    _require_pure(graph)
    return graph


def sizes_of(arguments: list[Any]) -> list[tuple[int, int]]:
    """Where the sizes that may change from call to call are found: which argument, which dimension."""
    found: dict[Any, tuple[int, int]] = {}
    for i, argument in enumerate(arguments):
        for dim, size in enumerate(argument.shape):
            if isinstance(size, torch.SymInt) and size.node.hint is not None and size.node.expr.is_symbol:
                found.setdefault(size.node.expr, (i, dim))
    return list(found.values())


def _is_mutable(node: Any) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _require_pure(graph: GraphModule) -> None:
    for node in graph.graph.nodes:
        if _is_mutable(node):
            raise NotWhole("it writes into tensors that it uses (running means)")
        if isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags:
            raise NotWhole("it draws random numbers")
