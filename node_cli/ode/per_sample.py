"""The step loop in which each sample of a batch keeps its own time and step size, and sees no other.

All samples are evaluated together until the last one arrives; one that has arrived takes steps of length zero.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from node_cli.ode.control import Controller, Tolerance, choose_first_step
from node_cli.ode.integrate import CUT_OFF, ROUNDING, SHORTEST, STRETCH, Limits, OutputTimes, Run
from node_cli.ode.solution import SolveError, SolveStats, Status
from node_cli.ode.stepping import Output, Step, Stepper, as_column
from node_cli.ode.tableaus import Array


def integrate_per_sample(
    run: Run,
    times: OutputTimes,
    tolerance: Tolerance,
    controller: Controller,
    limits: Limits,
    first_step: float | None,
) -> Tensor:
    """States at the output times, by the rules of `integrate_adaptively` for each sample.

    The norm of `tolerance` gives a number for each sample. `stats` counts evaluations of the whole batch, the steps
    of the sample that took most of them, and the step sizes of all samples.

    Raises:
        SolveError: one of the samples failed.
    """
    stepper, stats, y, batch, ts = run.stepper, run.stats, run.y0, len(run.y0), np.array(run.ts)
    t: Array = np.full(batch, ts[0])
    last = np.zeros(batch, dtype=np.int64)  # the last output that was reached
    ys = y.expand(len(ts), *y.shape).clone()
    counts = np.zeros((2, batch), dtype=np.int64)  # of steps that were accepted, and rejected
    attempts = 0
    ratio: Array = np.zeros(batch)
    step: Array = np.full(batch, first_step or 0.0)
    stepper.start(t, y)
    if first_step is None:
        step = choose_first_step(tolerance, stepper, t, y, run.ts[-1] - run.ts[0]).double().cpu().numpy()
    while (active := last < len(ts) - 1).any():
        ahead = np.minimum(last + 1, len(ts) - 1)
        segment = (ahead - 1, ahead) if times.stepping_onto else (np.zeros_like(last), np.full_like(last, len(ts) - 1))
        target = np.where(active, ts[segment[1]], t)
        t1 = _ends_of_steps(t, target, step, limits.max_step)
        _refuse_hopeless(attempts, t, t1, target, step, ratio, limits, stats)
        attempts += 1
        y1 = stepper.step(t, t1, y)
        ratio = tolerance.ratio(stepper.error(t, t1), y, y1).double().cpu().numpy()  # the one wait for the device
        ratio = np.where(active, ratio, 0.0)
        if not np.isfinite(ratio).all():
            # No sample moves: a slope that is NaN would spoil the gradients of all others in the step.
            _refuse_non_finite(t, y, stepper.stages[0], ratio, stats)
            step = np.where(np.isfinite(ratio), step, np.abs(t1 - t) * controller.dfactor)
            counts[1] += ~np.isfinite(ratio)
            continue
        moves = active & (ratio <= 1)
        tried = np.abs(t1 - t)
        proposed = tried * controller.factor(ratio)
        step = np.where(moves & (tried < CUT_OFF * step), np.maximum(step, proposed), proposed)
        counts += (moves, active & ~moves)
        stats.num_accepted, stats.num_rejected = counts.max(1).tolist()
        if not moves.any():
            continue
        outputs = _reached(ts, times.sign, last, t, t1, moves, stepping_onto=times.stepping_onto)
        _keep(ys, outputs, stepper, t, t1, y, y1)
        moved = torch.from_numpy(moves).to(y.device)
        run.record(Step(t, t1, outputs, segment, accepted=None if moves.all() else moved), y)
        stats.step_sizes.extend(tried[moves].tolist())
        t, y = np.where(moves, t1, t), torch.where(as_column(moved, y), y1, y)
        for output in outputs:
            last[output.mask] = output.index
        stepper.next(t, y, as_column(moved, y))
    return ys


def _ends_of_steps(t: Array, target: Array, step: Array, longest: float) -> Array:
    """Exactly at the target if a step comes near it, half way to it if two will do; where the step ends, if not."""
    left = np.abs(target - t)
    length = np.minimum(np.minimum(step, longest), left / 2)
    return np.where(left <= np.minimum(STRETCH * step, longest * ROUNDING), target, t + np.copysign(length, target - t))


def _refuse_hopeless(
    attempts: int, t: Array, t1: Array, target: Array, step: Array, ratio: Array, limits: Limits, stats: SolveStats
) -> None:
    """Raises SolveError before an attempt that is one too many or too short, of one of the samples."""
    if attempts >= limits.max_steps:
        raise SolveError(Status.TOO_MANY_STEPS, float(t[np.argmax(np.abs(target - t))]), stats.nfe)
    stuck = (t1 != target) & ((t1 == t) | (step < np.maximum(limits.min_step, SHORTEST * np.spacing(np.abs(t)))))
    if stuck.any():
        sample = int(np.argmax(stuck))
        status = Status.STEP_UNDERFLOW if np.isfinite(ratio[sample]) else Status.NON_FINITE
        raise SolveError(status, float(t[sample]), stats.nfe, f"sample {sample}: ")


def _refuse_non_finite(t: Array, y: Tensor, dy: Tensor, ratio: Array, stats: SolveStats) -> None:
    """Raises SolveError for a sample whose step starts from NaN or infinity."""
    finite = torch.isfinite(y + dy).reshape(len(y), -1).all(1).cpu().numpy()
    hopeless = ~finite & ~np.isfinite(ratio)
    if hopeless.any():
        sample = int(np.argmax(hopeless))
        raise SolveError(Status.NON_FINITE, float(t[sample]), stats.nfe, f"sample {sample}: ")


def _reached(
    ts: Array, sign: float, last: Array, t0: Array, t1: Array, moves: Array, *, stepping_onto: bool
) -> list[Output]:
    """The outputs that some sample passes in its step."""
    outputs = []
    length = np.where(t1 == t0, 1.0, t1 - t0)
    for index in range(int(last[moves].min()) + 1, len(ts)):
        mask = moves & (last < index) & (sign * (ts[index] - t1) <= 0)
        if stepping_onto:
            mask &= last == index - 1
        if mask.any():
            is_target = stepping_onto or index == len(ts) - 1
            outputs.append(Output(index, None if is_target else np.where(mask, (ts[index] - t0) / length, 0.0), mask))
    return outputs


def _keep(ys: Tensor, outputs: list[Output], stepper: Stepper, t0: Array, t1: Array, y0: Tensor, y1: Tensor) -> None:
    """Puts the states at the outputs of a step in their places."""
    for output in outputs:
        state = y1 if output.theta is None else stepper.interpolate(t0, t1, y0, [output.theta])[0]
        assert output.mask is not None
        mask = as_column(torch.from_numpy(output.mask).to(y0.device), y0)
        ys[output.index] = torch.where(mask, state, ys[output.index])
