"""The spiral under diffrax, compiled as a whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1")

import diffrax
import jax
import jax.numpy as jnp
from torch import Tensor


def step_and_count(
    parameters: Mapping[str, Tensor], y0: Tensor, ts: Tensor, target: Tensor, tolerance: float
) -> tuple[Callable[[], Any], Callable[[], tuple[int, int]]]:
    """A training step (states and gradients, as `small.Contender.step`) and its evaluations forward, backward."""
    weights = {name: jnp.asarray(p.detach().numpy()) for name, p in parameters.items()}
    start, times, goal = (jnp.asarray(x.numpy()) for x in (y0, ts, target))
    evaluations: list[int] = []

    def field(t: Any, y: Any, w: dict[str, Any]) -> Any:
        hidden = jnp.tanh(y**3 @ w["net.0.weight"].T + w["net.0.bias"])
        return hidden @ w["net.2.weight"].T + w["net.2.bias"]

    def counted(t: Any, y: Any, w: dict[str, Any]) -> Any:
        jax.debug.callback(lambda: evaluations.append(1))
        return field(t, y, w)

    def loss_and_states(w: dict[str, Any], vector_field: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(vector_field),
            diffrax.Dopri5(),
            times[0],
            times[-1],
            None,
            start,
            w,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
        )
        return jnp.abs(solution.ys - goal).mean(), solution.ys

    train = jax.jit(jax.value_and_grad(lambda w: loss_and_states(w, field), has_aux=True))
    counted_train = jax.jit(jax.value_and_grad(lambda w: loss_and_states(w, counted), has_aux=True))
    counted_forward = jax.jit(lambda w: loss_and_states(w, counted))

    def step() -> Any:
        (_, ys), grads = jax.block_until_ready(train(weights))
        return ys, grads

    def evaluations_of(solve: Callable[[Any], Any]) -> int:
        evaluations.clear()
        jax.block_until_ready(solve(weights))
        jax.effects_barrier()
        return len(evaluations)

    def count() -> tuple[int, int]:
        forward = evaluations_of(counted_forward)
        return forward, evaluations_of(counted_train) - forward

    return step, count
