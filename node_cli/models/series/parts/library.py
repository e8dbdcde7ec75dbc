"""A library of terms: products of variables, and their sines and cosines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
from torch import Tensor, nn

from node_cli.ode.checks import require_at_least


class Library(nn.Module):
    """All products of at most `degree` variables, 1 first, then, if asked, the sine and cosine of each.

    Variables come divided by their typical sizes; sine and cosine are of the user's units.

    Attributes:
        names: of the terms.
        sizes: what each term is divided by where its variables are.
    """

    parents: list[Tensor]
    size: Tensor

    def __init__(self, names: Sequence[str], sizes: Sequence[float], *, degree: int, trigonometric: bool) -> None:
        super().__init__()
        require_at_least("degree", degree, 1)
        self.degree = degree
        self.trigonometric = trigonometric
        self.register_buffer("size", torch.tensor(sizes), persistent=False)
        products = [
            product
            for number in range(degree + 1)
            for product in combinations_with_replacement(range(len(names)), number)
        ]
        place = {product: index for index, product in enumerate(products)}
        for number in range(2, degree + 1):
            pairs = [(place[product[:-1]], product[-1]) for product in products if len(product) == number]
            self.register_buffer(f"pairs_{number}", torch.tensor(pairs).T.contiguous(), persistent=False)
        self.names = [_product([names[variable] for variable in product]) for product in products]
        self.sizes = [math.prod(sizes[variable] for variable in product) for product in products]
        if trigonometric:
            self.names += [f"{function}({name})" for function in ("sin", "cos") for name in names]
            self.sizes += [1.0] * (2 * len(names))

    def forward(self, variables: Tensor) -> Tensor:
        """The terms `(n, num_terms)` of variables `(n, num_variables)`."""
        terms = torch.cat([torch.ones_like(variables[:, :1]), variables], dim=1)
        for number in range(2, self.degree + 1):
            factor, variable = self.get_buffer(f"pairs_{number}")
            terms = torch.cat([terms, terms[:, factor] * variables[:, variable]], dim=1)
        if self.trigonometric:
            angles = variables * self.size
            terms = torch.cat([terms, angles.sin(), angles.cos()], dim=1)
        return terms


def _product(names: Sequence[str]) -> str:
    """`hare^2 lynx`; 1 for none."""
    powers = [f"{name}^{names.count(name)}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return " ".join(powers) or "1"
