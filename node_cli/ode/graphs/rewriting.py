"""Fewer and cheaper products of small matrices, and a cheaper tanh: most of a small solve would go to them.

The gradient of a weight is a sum over all evaluations, `sum_i a_i^T b_i`, which is `[a_1; a_2; ...]^T [b_1; b_2; ...]`;
that of a bias is a sum over all rows. A product with few terms or columns is a sum that fuses with its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node

aten = torch.ops.aten
FEW = 4  # a product with so few terms, or so few columns, is written out
# tanh(x) = x p(x^2) / q(x^2) within 7 units in the last place of float32: the coefficients of Eigen and XLA, highest
# first. Beyond the bound it rounds to 1.
TANH_BOUND = 7.998811721801758
TANH_P = (
    *(-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08),
    *(1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
)
TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)


def share_results(traced: GraphModule) -> None:
    """What several evaluations compute alike (of weights alone, say) is computed once."""
    first: dict[tuple[Any, str, str], Node] = {}
    for node in list(traced.graph.nodes):
        if node.op != "call_function" or "empty" in str(node.target):
            continue
        same = first.setdefault((node.target, str(node.args), str(node.kwargs)), node)
        if same is not node:
            node.replace_all_uses_with(same)
            traced.graph.erase_node(node)
    traced.recompile()


def join_products(traced: GraphModule) -> None:
    """Rewrites the graph in place; its nodes have their fake values in `meta["val"]`."""
    graph = traced.graph
    joined: dict[tuple[Node, ...], Node] = {}
    for node in reversed(list(graph.nodes)):
        if node.target is not aten.add.Tensor or not node.users or _is_term(node):
            continue
        terms = _terms(node)
        if len(terms) < 2:
            continue
        replacement = _product(graph, node, terms, joined) or _column_sum(graph, node, terms, joined)
        if replacement is not None:
            node.replace_all_uses_with(replacement)
    graph.eliminate_dead_code()
    traced.recompile()


def write_out_products(traced: GraphModule) -> None:
    """Rewrites products of matrices with few terms or columns as sums, which fuse with what comes before and after."""
    graph = traced.graph
    turned: dict[Node, Node] = {}
    for node in list(graph.nodes):
        if node.target is aten.mm.default:
            bias, (a, b) = None, node.args
        elif node.target is aten.addmm.default and not node.kwargs:
            bias, a, b = node.args
        else:
            continue
        (_, num_terms), (_, num_columns) = a.meta["val"].shape, b.meta["val"].shape
        if not (isinstance(num_terms, int) and isinstance(num_columns, int)) or min(num_terms, num_columns) > FEW:
            continue
        with graph.inserting_before(node):
            if num_terms <= FEW:
                rows = _contiguous(graph, b, turned)
                result = None
                for i in range(num_terms):
                    column = _call(graph, aten.unsqueeze.default, _call(graph, aten.select.int, a, 1, i), 1)
                    row = _call(graph, aten.unsqueeze.default, _call(graph, aten.select.int, rows, 0, i), 0)
                    term = _call(graph, aten.mul.Tensor, column, row)
                    result = term if result is None else _call(graph, aten.add.Tensor, result, term)
            else:
                a = _computed_once(graph, a)
                columns = _contiguous(graph, _transposed(graph, b), turned)
                pairs = [_call(graph, aten.unsqueeze.default, each, dim) for each, dim in ((a, 1), (columns, 0))]
                result = _call(graph, aten.sum.dim_IntList, _call(graph, aten.mul.Tensor, *pairs), [2])
            if bias is not None:
                result = _call(graph, aten.add.Tensor, result, bias)
        node.replace_all_uses_with(result)
    graph.eliminate_dead_code()
    traced.recompile()


def write_out_tanh(traced: GraphModule) -> None:
    """Rewrites tanh of float32 as a quotient of polynomials, which a processor makes several times as fast."""
    graph = traced.graph
    for node in graph.find_nodes(op="call_function", target=aten.tanh.default):
        if node.meta["val"].dtype is not torch.float32:
            continue
        with graph.inserting_before(node):
            x = _call(graph, aten.clamp_min.default, node.args[0], -TANH_BOUND)
            x = _call(graph, aten.clamp_max.default, x, TANH_BOUND)
            square = _call(graph, aten.mul.Tensor, x, x)
            p, q = (_polynomial(graph, row, square) for row in (TANH_P, TANH_Q))
            result = _call(graph, aten.mul.Tensor, x, _call(graph, aten.div.Tensor, p, q))
        node.replace_all_uses_with(result)
    graph.eliminate_dead_code()
    traced.recompile()


def _polynomial(graph: Graph, coefficients: Sequence[float], x: Node) -> Node:
    """With the highest power first."""
    value = _call(graph, aten.mul.Tensor, x, coefficients[0])
    for number in coefficients[1:-1]:
        value = _call(graph, aten.mul.Tensor, _call(graph, aten.add.Tensor, value, number), x)
    return _call(graph, aten.add.Tensor, value, coefficients[-1])


def _computed_once(graph: Graph, node: Node) -> Node:
    """The same matrix in memory: else the compiler would compute it anew for each column of the product."""
    value = node.meta["val"]
    if node.op == "placeholder" or not value.is_contiguous():
        return node
    return _call(graph, torch.ops.prims.inductor_force_stride_order.default, node, list(value.stride()))


def _transposed(graph: Graph, node: Node) -> Node:
    base, is_turned = _turned(node)
    return base if is_turned else _call(graph, aten.permute.default, node, [1, 0])


def _contiguous(graph: Graph, node: Node, turned: dict[Node, Node]) -> Node:
    """The matrix with its rows in order; of a weight, once for all."""
    base: Node
    base, is_turned = _turned(node)
    if not is_turned:
        return base
    if base.op != "placeholder" and base.target is not aten.alias.default:
        return node
    if base not in turned:
        with graph.inserting_after(base):
            view = _call(graph, aten.permute.default, base, [1, 0])
        with graph.inserting_after(view):
            stride = [view.meta["val"].shape[1], 1]
            turned[base] = _call(graph, torch.ops.prims.inductor_force_stride_order.default, view, stride)
    return turned[base]


def _is_term(node: Node) -> bool:
    """Whether a sum is part of a longer one."""
    return len(node.users) == 1 and next(iter(node.users)).target is aten.add.Tensor


def _terms(node: Any) -> list[Node]:
    """Of a sum of sums that nothing else uses."""
    terms: list[Node] = []
    for term in node.args:
        if not isinstance(term, Node) or node.kwargs:
            return []
        is_sum = term.target is aten.add.Tensor and len(term.users) == 1
        terms += (_terms(term) or [term]) if is_sum else [term]
    return terms


def _product(graph: Graph, node: Node, terms: list[Node], joined: dict[tuple[Node, ...], Node]) -> Node | None:
    turned = [_turned(term) for term in terms]
    products, is_turned = [product for product, _ in turned], turned[0][1]
    if any(product.target is not aten.mm.default or turn != is_turned for product, turn in turned):
        return None
    if not all(_turned(product.args[0])[1] for product in products):
        return None
    left = [_turned(product.args[0])[0] for product in products]
    right: list[Any] = [product.args[1] for product in products]
    if not all(_have_equal_rows(*pair) for pair in zip(left, right, strict=True)):
        return None
    with graph.inserting_before(node):
        rows = _call(graph, aten.permute.default, _joined(graph, node, left, joined), [1, 0])
        product = _call(graph, aten.mm.default, rows, _joined(graph, node, right, joined))
        return _call(graph, aten.permute.default, product, [1, 0]) if is_turned else product


def _column_sum(graph: Graph, node: Node, terms: list[Node], joined: dict[tuple[Node, ...], Node]) -> Node | None:
    sums: list[Any] = [term.args[0] if term.target is aten.view.default else term for term in terms]
    if not all(each.target is aten.sum.dim_IntList and each.args[1:] == ([0], True) for each in sums):
        return None
    if any(each.args[0].meta["val"].dim() != 2 for each in sums):
        return None
    with graph.inserting_before(node):
        rows = _joined(graph, node, [each.args[0] for each in sums], joined)
        total = _call(graph, aten.sum.dim_IntList, rows, [0], True)
        shape = list(node.meta["val"].shape)
        return _call(graph, aten.view.default, total, shape)


def _joined(graph: Graph, node: Node, parts: list[Node], joined: dict[tuple[Node, ...], Node]) -> Node:
    """The rows of all parts in one matrix, which others may have joined before."""
    key = tuple(parts)
    if key not in joined:
        last = max(parts, key=list(graph.nodes).index)
        with graph.inserting_after(last):
            joined[key] = _call(graph, aten.cat.default, parts, 0)
    return joined[key]


def _call(graph: Graph, target: Any, *args: Any) -> Node:
    node = graph.call_function(target, args)
    node.meta["val"] = target(*torch.fx.map_arg(args, lambda arg: arg.meta["val"]))
    return node


def _turned(node: Any) -> tuple[Any, bool]:
    """What a matrix is the transpose of, if it is one; transposes of transposes are none."""
    is_turned = False
    while node.target is aten.permute.default and list(node.args[1]) == [1, 0]:
        node, is_turned = node.args[0], not is_turned
    return node, is_turned


def _have_equal_rows(a: Node, b: Node) -> bool:
    one, other = a.meta["val"], b.meta["val"]
    return bool(one.dim() == other.dim() == 2 and one.shape[0] == other.shape[0])
