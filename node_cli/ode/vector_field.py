"""The right-hand side of an ODE as a solve sees it: counted, bounded and watched."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_map

from node_cli.ode.solution import SolveError, SolveStats, State, Status
from node_cli.ode.states import require_slope


class CountedVectorField(Generic[State]):
    """`f(t, y) -> dy/dt` for one solve. The solve counts evaluations and steps, so no model has to.

    The result is cast to the dtype of `y`: under autocast `f` computes in lower precision, the state does not.
    `step_start` is the time at which the last step began.

    Raises:
        SolveError: at evaluation `max_nfe + 1` or step `max_steps + 1`; at a step that starts from a non-finite state
            or no longer moves t.
        ValueError: `f` writes into its arguments, or returns another shape.
    """

    def __init__(self, f: Callable[[Tensor, State], State], max_nfe: int | None, max_steps: int | None = None) -> None:
        self._f: Callable[[Tensor, Any], Any] = f
        self.max_nfe = max_nfe
        self._max_steps = max_steps
        self._hands_out_copies = torch.is_inference_mode_enabled()  # nobody counts there what is written
        self.step_start = _NEVER
        self.stats = SolveStats()

    def __call__(self, t: Tensor, y: State) -> State:
        self.count(1, t)
        if self._hands_out_copies:
            t, y = t.clone(), tuple(part.clone() for part in y) if isinstance(y, tuple) else y.clone()
            dy = self._evaluate(t, y)
        else:
            version = _version(t, y)
            dy = self._evaluate(t, y)
            if _version(t, y) != version:
                raise ValueError(_WRITES)
        if isinstance(y, tuple) or isinstance(dy, tuple):
            return dy
        require_slope(dy)
        if dy.shape != y.shape:
            shapes = f"{tuple(y.shape)}, got {tuple(dy.shape)}"
            raise ValueError(f"the vector field must return the shape of the state, {shapes}")
        return dy if dy.dtype == y.dtype else dy.to(y.dtype)

    def _evaluate(self, t: Tensor, y: State) -> State:
        try:
            dy: State = self._f(t, y)
        except RuntimeError as error:
            if _WRITES_INTO_LEAF in str(error):
                raise ValueError(_WRITES) from error
            if not asks_for_graph(error):
                raise
            self._f = with_graph(self._f)
            dy = self._f(t, y)
        return dy

    def count(self, evaluations: int, t: Tensor) -> None:
        """Counts evaluations at `t`, also those that are made elsewhere."""
        if self.max_nfe is not None and self.stats.nfe + evaluations > self.max_nfe:
            raise self.failure(Status.TOO_MANY_EVALUATIONS, t)
        self.stats.nfe += evaluations

    def failure(self, status: Status, t: Tensor, detail: str = "") -> SolveError:
        """The error to raise for a solve that failed at `t`."""
        return SolveError(status, t.reshape(-1)[0].item(), self.stats.nfe, detail)

    def start_step(self, t: Tensor, y: State, step: Tensor) -> None:
        """Refuses a step that cannot succeed, with the true reason, before the solver takes it."""
        self.step_start = t
        if step == 0 or not all_finite(y):  # no step size follows from an error that is not a number
            raise self.failure(Status.NON_FINITE, t)
        if abs(t) + step == abs(t):
            raise self.failure(Status.STEP_UNDERFLOW, t)
        if self.stats.num_accepted + self.stats.num_rejected == self._max_steps:
            raise self.failure(Status.TOO_MANY_STEPS, t)

    def accept_step(self, t: Tensor, y: State, step: Tensor) -> None:
        """Counts an accepted step."""
        self.stats.num_accepted += 1
        self.stats.step_sizes.append(abs(step.item()))

    def reject_step(self, t: Tensor, y: State, step: Tensor) -> None:
        """Counts a rejected step."""
        self.stats.num_rejected += 1

    def start_and_accept_step(self, t: Tensor, y: State, step: Tensor) -> None:
        """For methods of fixed step size, which accept every step."""
        self.start_step(t, y, step)
        self.accept_step(t, y, step)


def all_finite(y: Tensor | tuple[Tensor, ...]) -> bool:
    """Whether no entry of the state is infinite or not a number."""
    tensors = y if isinstance(y, tuple) else (y,)
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


def _version(t: Tensor, y: Any) -> int:
    """Grows whenever something is written into one of them."""
    version: int = sum([part._version for part in y]) if isinstance(y, tuple) else y._version
    return version + t._version


_NEVER: Tensor = torch.tensor(math.nan)
_WRITES_INTO_LEAF = "leaf Variable that requires grad is being used in an in-place operation"  # as torch says it
_WRITES = (
    "the vector field writes into its arguments, which the solver goes on from: "
    "let it work on a copy (y = y.clone()), or use operations that are not in-place"
)


def asks_for_graph(error: RuntimeError) -> bool:
    """Whether a vector field failed because it differentiates by itself, and there is no graph for it."""
    return "does not require grad" in str(error) and not torch.is_grad_enabled()


def with_graph(f: Callable[[Tensor, Any], Any]) -> Callable[[Tensor, Any], Any]:
    """`f` evaluated with a graph, for a field that differentiates by itself; the slope has none."""

    def evaluate(t: Tensor, y: Any) -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            dy = f(t.clone(), tree_map(lambda part: part.detach().clone().requires_grad_(), y))
        return tree_map(torch.Tensor.detach, dy)

    return evaluate


def outside_transforms(
    vector_field: Callable[[Tensor, Tensor], Tensor], y0: Tensor, ts: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """The vector field, for a solve that only autograd in reverse mode can differentiate.

    Raises:
        ValueError: now, or at an evaluation: the solve is inside a transform of torch.func, or one of its tensors has
            a forward-mode tangent.
    """
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise ValueError(
            "a solve cannot be inside a transform of torch.func (vmap, grad, jvp, ...): use torch.autograd, and the "
            "batch dimension of the state in place of vmap"
        )
    if forward_ad._current_level < 0:
        return vector_field
    _refuse_tangent(y0, ts)

    def checked(t: Tensor, y: Tensor) -> Tensor:
        dy = vector_field(t, y)
        _refuse_tangent(dy)
        return dy

    return checked


def _refuse_tangent(*tensors: Tensor) -> None:
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise ValueError(
            "a solve has no forward-mode derivative: use reverse mode (torch.autograd.grad, or "
            "torch.autograd.functional.vjp and jacobian)"
        )
