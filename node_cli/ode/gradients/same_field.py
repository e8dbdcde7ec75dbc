"""Whether the vector field that is evaluated again is the one that was solved: its values now against those then."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from node_cli.ode.errors import ArgumentError

ROUNDING = 64  # units in the last place by which sums may differ that a machine adds up in another order
ROUNDING_TO_TF32 = 4 * 2**-10  # four units in its last place; steps of an ODE-Net for images differ by a fifth of one


class Comparison:
    """Of the ends of the steps that are run again with those of the solve; `precision` is the vector field's.

    Adding one waits for no device; all are read at once, in the end.
    """

    def __init__(self, precision: float) -> None:
        self._precision = precision
        self._steps: list[int] = []
        self._norms: list[Tensor] = []

    def add(self, n: int, again: Tensor, before: Tensor) -> None:
        """Where step n ends now, and where it ended before."""
        norms = [torch.linalg.vector_norm(change, math.inf) for change in (again - before, before)]
        self.add_norms(n, norms)

    def add_norms(self, n: int, norms: Sequence[Tensor]) -> None:
        """The same: how far the ends of step n are apart, and how large the one before was."""
        self._steps.append(n)
        self._norms += norms

    def worst(self) -> tuple[int, Difference] | None:
        """The step with the largest difference, or None if there is no difference; forgets all steps."""
        if not self._steps:
            return None
        norms = torch.stack(self._norms).tolist()
        pairs = zip(norms[::2], norms[1::2], strict=True)
        differences = [(n, Difference(*pair, self._precision)) for n, pair in zip(self._steps, pairs, strict=True)]
        self._steps, self._norms = [], []
        n, difference = max(differences, key=lambda pair: pair[1].relative)
        return (n, difference) if difference.relative > 0 else None


class Difference:
    """How far a result is from what it was, relative to its size."""

    def __init__(self, distance: float, size: float, precision: float) -> None:
        self.relative = 0.0 if distance == 0 else distance / size if size > 0 else math.inf
        self.relative = math.inf if math.isnan(self.relative) else self.relative
        self._precision = precision

    @property
    def is_rounding(self) -> bool:
        """Whether another order of the same sums explains it."""
        return self.relative <= ROUNDING * self._precision

    @property
    def is_small(self) -> bool:
        """Whether other kernels for the same computation explain it."""
        return self.relative <= math.sqrt(self._precision)

    def is_from_compiling(self, device: torch.device) -> bool:
        """Whether code that was compiled for one of the two, or twice, explains it.

        A GPU may round what it multiplies to TF32, up or down by how the last place in float32 was rounded.
        """
        has_tf32 = device.type == "cuda" and self._precision >= torch.finfo(torch.float32).eps
        return self.is_rounding or (has_tf32 and self.relative <= ROUNDING_TO_TF32)


def is_repeatable(before: Tensor, again: Callable[[], Tensor], precision: float) -> bool:
    """Whether `again()`, computed as `before` was, is `before` to the last bit.

    Where it is another one each time, as sums are on some devices, rounding is allowed.
    """
    first = again()
    if torch.equal(first, before):
        return True
    size = torch.linalg.vector_norm(before, math.inf).item()
    difference = Difference(torch.linalg.vector_norm(first - before, math.inf).item(), size, precision)
    return difference.is_rounding and not torch.equal(first, again())


def refuse_changed(t: float) -> None:
    """Raises ArgumentError for a vector field that is another one by now."""
    raise ArgumentError(
        "the vector field has changed since the solve: evaluated again for the gradient, it returns other values at "
        "t = {t:.6g}. Something that it uses was changed before backward() (a control, a buffer, train() or eval()), "
        "or each evaluation changes it (a memory, random numbers). Call backward() before the change, give each solve "
        "a module of its own, draw noise once for a solve, or take {direct}, whose first backward pass runs nothing "
        "again without {compiled_step}",
        t=t,
    )


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Iterator[None]:
    """What an evaluation writes into these (running means) is undone in the end: it counts once, in the solve."""
    values = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        for tensor, value in values:
            tensor.data.copy_(value)  # unseen by autograd, whose other graphs may have saved it


def precision_of(y: Tensor) -> float:
    """The unit in the last place of what a vector field computes for `y`, under the autocast of this moment."""
    device = y.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else y.dtype
    return torch.finfo(dtype).eps
