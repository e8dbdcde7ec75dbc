"""States that are made of several tensors: tuples, lists, dicts, named tuples, nested at will, as one flat tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from node_cli.ode import control, states, synchronised
from node_cli.ode.states import Layout, Parts


@dataclass(frozen=True)
class Structure:
    """What a state is made of, and how its parts lie in one tensor."""

    spec: TreeSpec
    layout: Layout

    @cached_property
    def is_plain(self) -> bool:
        """Whether the state is one tensor, which stays as it is."""
        return bool(self.spec.is_leaf())

    def unflatten(self, flat: Tensor) -> Any:
        """A state in its own structure; leading dimensions stay."""
        return flat if self.is_plain else tree_unflatten(self.parts_of(flat), self.spec)

    def parts_of(self, flat: Tensor) -> Parts:
        """Views of the parts; leading dimensions stay."""
        return (flat,) if self.is_plain else self.layout.split(flat)

    def norm(
        self, norm: str | Callable[[Any], Any], *, per_sample: bool, is_shared: bool
    ) -> str | Callable[[Tensor], Tensor]:
        """A norm of the state as one of the flat tensor: rms is that of the part where it is largest."""
        if callable(norm):
            given = norm
            return lambda flat: (
                torch.as_tensor(given(self.unflatten(flat)), dtype=flat.dtype, device=flat.device).abs().reshape(())
            )
        if norm != "rms" or self.is_plain:
            return norm
        of_all = synchronised.largest_rms if is_shared else control.largest_rms
        measure = control.largest_rms_per_sample if per_sample else of_all
        return lambda flat: measure(self.parts_of(flat))

    def tolerance(self, name: str, value: Any) -> Any:
        """A tolerance as given, or, where each part of the state has its own, as one for each number of the state."""
        if isinstance(value, (int, float)):
            return value
        if isinstance(value, np.ndarray):
            value = torch.as_tensor(value)
        if isinstance(value, Tensor) and value.dim() == 0:
            states.require_no_gradient(name, value)
            return value.item()
        if self.is_plain:
            return list(value) if isinstance(value, tuple) else value
        shapes = self.layout.shapes
        if len(value) != len(shapes):
            raise ValueError(
                f"{name} must be a number, or one for each of the {len(shapes)} parts of the state, got {value}"
            )
        own = [torch.as_tensor(part, dtype=torch.float64) for part in value]
        return self.layout.flatten([part.expand(shape) for part, shape in zip(own, shapes, strict=True)])


class FieldOfParts(nn.Module):
    """A vector field of structured states as one of flat tensors. A module, so that its parameters are seen."""

    def __init__(self, vector_field: Callable[[Tensor, Any], Any], structure: Structure) -> None:
        super().__init__()
        self.vector_field = vector_field
        self.structure = structure
        self.num_dims = max(len(shape) for shape in structure.layout.shapes)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """The slope, flat.

        Raises:
            ValueError: it has not the structure and the shapes of the state.
        """
        t = t.view(-1, *(1,) * (self.num_dims - 1)) if t.dim() else t
        structure = self.structure
        dy = self.vector_field(t, structure.unflatten(y))
        if isinstance(dy, list) and structure.spec.type is tuple:
            dy = tuple(dy)
        try:
            parts = structure.spec.flatten_up_to(dy)
        except ValueError as error:
            raise ValueError(f"the vector field must return what the state is made of: {error}") from None
        for part in parts:
            states.require_slope(part)
        return structure.layout.flatten_slope(parts, y.dtype)


def taken_apart(y0: Any, *, by_sample: bool) -> tuple[Structure, Tensor]:
    """The structure of a state, and the state itself, flat; `by_sample`, as `(batch, n)`.

    Raises:
        ValueError: no solve can start from it, or, `by_sample`, its parts share no batch dimension.
    """
    if isinstance(y0, Tensor):
        states.require_state(y0)
        return _plain(y0.shape), y0
    leaves, spec = tree_flatten(y0)
    parts = _tensors(leaves)
    states.require_state(parts)
    shapes = tuple(part.shape for part in parts)
    if spec.is_leaf():
        return Structure(spec, Layout(shapes)), parts[0]
    if by_sample and (not all(shapes) or len({shape[0] for shape in shapes}) > 1):
        raise ValueError(
            "batching=per_sample, and ts of each sample's own, need parts of the state that share their dimension 0, "
            f"the sample, got {[tuple(shape) for shape in shapes]}"
        )
    layout = Layout(shapes, by_sample)
    return Structure(spec, layout), layout.flatten(parts)


@lru_cache(maxsize=32)
def _plain(shape: torch.Size) -> Structure:
    """That of one tensor; making it again takes long beside a small solve."""
    return Structure(tree_flatten(torch.empty(0))[1], Layout((shape,)))


def _tensors(leaves: list[Any]) -> tuple[Tensor, ...]:
    """Numbers take the dtype and device of the tensors beside them."""
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    like = tensors[0] if tensors else torch.empty(0)
    parts = []
    for leaf in leaves:
        if isinstance(leaf, (Tensor, np.ndarray, np.number)):
            parts.append(torch.as_tensor(leaf))
        elif isinstance(leaf, (int, float)):
            parts.append(like.new_full((), leaf))
        else:
            kind = type(leaf).__name__
            raise ValueError(
                f"y0 must be a tensor, a number, or a tuple, list, dict or named tuple of them, got {kind}"
            )
    return tuple(parts)
