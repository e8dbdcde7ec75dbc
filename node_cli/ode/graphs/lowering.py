"""From a function of tensors to machine code: traced with stand-ins for its arguments, then compiled by inductor."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

log = logging.getLogger(__name__)

MAX_TERMS = 4  # a product of so few terms is written out


class NotWhole(Exception):
    """Why something cannot be compiled as a whole."""


def lowered(
    function: Callable[..., Any], arguments: list[Any], fake_mode: Any, device_type: str
) -> Callable[[list[Any]], Any]:
    """The function compiled for arguments like these, which are fake; it takes a list, which it empties.

    Raises:
        NotWhole: it draws random numbers, or writes into what it is given.
    """
    from torch._dispatch.python import enable_python_dispatcher
    from torch._guards import TracingContext, tracing  # only now: importing them takes a second
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch.fx.experimental.proxy_tensor import make_fx

    start, is_cpu = time.perf_counter(), device_type == "cpu"
    with tracing(TracingContext(fake_mode)), config.patch(cpp_wrapper=is_cpu):
        with fake_mode, enable_python_dispatcher(), torch.no_grad():
            traced = make_fx(function, decomposition_table=_decompositions())(*arguments)
            if any(_is_mutable(node) for node in traced.graph.nodes):
                traced = make_fx(torch.func.functionalize(traced))(*arguments)
        _require_pure(traced)
        examples = [node.meta["val"] for node in traced.graph.find_nodes(op="placeholder")]
        compiled: Any = compile_fx_inner(traced, examples, cpp_wrapper=is_cpu, is_inference=True)
    log.info("compiled %s in %.1f s", function.__name__, time.perf_counter() - start)
    run: Callable[[list[Any]], Any] = compiled.current_callable
    return run


def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Inductor's own, and those of products that are too small to be worth a call."""
    from torch._inductor.decomposition import select_decomp_table

    aten = torch.ops.aten
    return {**select_decomp_table(), aten.mm.default: _product, aten.addmm.default: _sum_and_product}


def _product(a: Tensor, b: Tensor) -> Any:
    inner = a.shape[1]
    if not isinstance(inner, int) or inner > MAX_TERMS:
        return NotImplemented
    terms = [a[:, i : i + 1] * b[i : i + 1] for i in range(inner)]
    return sum(terms[1:], terms[0])


def _sum_and_product(bias: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """The sum joins what comes after it in one pass over the memory."""
    if beta != 1 or alpha != 1:
        return NotImplemented
    return bias + torch.mm(a, b)


def _is_mutable(node: Any) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _require_pure(traced: GraphModule) -> None:
    for node in traced.graph.nodes:
        if _is_mutable(node):
            raise NotWhole("it writes into tensors that it uses (running means)")
        if isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags:
            raise NotWhole("it draws random numbers")
