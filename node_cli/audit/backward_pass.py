"""A model's forward and backward pass on one batch: its gradients, what it costs, and what they ought to be."""

from __future__ import annotations

import copy
import time
import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from node_cli.audit.base import Case
from node_cli.audit.comparison import Gradients, difference
from node_cli.audit.stand_ins import Recorder, Replayer, SolvedBack, Tight, WrongSign
from node_cli.batch import Batch, to_device
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.base import Solver
from node_cli.ode.gradients import Gradient
from node_cli.ode.runge_kutta import RungeKutta
from node_cli.ode.solution import SolveError
from node_cli.tasks.task import Task
from node_cli.training.evaluation import autocast
from node_cli.training.solve_monitor import SolveMonitor


@dataclass(frozen=True)
class Pass:
    """One forward and backward pass. `times` are the gradients of each block's t0 and t1."""

    loss: float
    parameters: Gradients
    times: Gradients


@dataclass(frozen=True)
class Cost:
    """Evaluations of the vector fields, seconds, and the most bytes of tensors at once (None: could not be counted)."""

    nfe_forward: int
    nfe_backward: int
    seconds: float
    peak_bytes: int | None


class BackwardPass:
    """Passes of copies of `model`, which stays untouched, on one batch: one as it is, one in float64.

    Both are in evaluation mode: without dropout, with the first step of every solve chosen anew. The times have
    gradients, whether or not they are learned. The loss is that at `progress` of a run.
    """

    def __init__(self, model: nn.Module, task: Task, batch: Batch, precision: str, progress: float = 1.0) -> None:
        self._task = task
        self._precision = precision
        self._progress = progress
        self._own = _copy_of(model)
        self._double = _copy_of(model, torch.float64)
        device = next(self._double.parameters()).device
        self._batch = batch
        self._double_batch = to_device(batch, device, torch.float64)
        self._monitor = SolveMonitor(self._own)

    def check_float64(self) -> None:
        """Raises ValueError where the model or the task cannot be evaluated in float64, which comparisons need."""
        try:
            with torch.no_grad():
                self._task.loss(self._double, self._double_batch, self._progress)
        except SolveError:
            pass  # by a solver that is not the one of the comparison
        except RuntimeError as error:
            if "type" not in str(error):
                raise
            raise ValueError(
                f"an audit evaluates {type(self._double).__name__} in float64, which fails "
                f"({str(error).splitlines()[0]}): let its own tensors be buffers, or take the dtype of its input"
            ) from error

    @property
    def block_names(self) -> list[str]:
        """The names of the ODE blocks."""
        return list(ode_blocks(self._own))

    def of(self, case: Case) -> Pass:
        """The pass as `case` makes it. Raises SolveError if a solve failed."""
        _set(self._own, case.solver, case.gradient)
        return self._run(with_times=True)

    def cost_of(self, case: Case) -> Cost:
        """What a pass costs in training, where times that are not learned need no gradients; the faster of two."""
        _set(self._own, case.solver, case.gradient)
        seconds = []
        for _ in range(2):
            self._monitor.take()
            started = time.perf_counter()
            self._run(with_times=False)
            seconds.append(time.perf_counter() - started)
        costs = self._monitor.take().scalars()
        nfe_forward, nfe_backward = (round(costs.get(f"nfe/{way}", 0)) for way in ("forward", "backward"))
        return Cost(nfe_forward, nfe_backward, min(seconds), self._peak_bytes(case))

    def exact(self, solver: Solver) -> tuple[Pass, float]:
        """The gradient, in float64, of the steps that `solver` makes of this batch; and the relative error that plain
        autograd over the same steps has in the precision of the model, by rounding alone.
        """
        recorder = Recorder()
        _set(self._own, solver, recorder)
        self._run_without_graph()
        _set(self._double, solver, Replayer(recorder.solves))
        exact = self._run_double()
        _set(self._own, solver, Replayer(recorder.solves))
        rounded = self._run(with_times=False)
        return exact, difference(rounded.parameters, exact.parameters).relative_error

    def of_the_ode(self, rtol: float) -> tuple[Pass, int]:
        """The gradient of the ODE itself, as near as a float64 solve at `rtol` comes to it, and its evaluations."""
        tight = Tight(rtol)
        for block in ode_blocks(self._double).values():
            block.gradient = tight
        return self._run_double(), tight.nfe

    def with_wrong_sign(self, solver: Solver) -> Gradients:
        """What the adjoint method would give if it had the sign of its ODE wrong."""
        _set(self._double, solver, WrongSign())
        return self._run_double().parameters

    def reconstruction(self, case: Case, num_times: int) -> dict[str, list[float]]:
        """For each block that solves, |y_back(t) - y(t)| / |y(t)| at `num_times` times from start to end, where y_back
        is the solve back from the end; the largest of its solves. The first is how far the way back misses the start.

        A solver that steps onto its output times shows both ends only: more of them would be another solve.
        `backward_stats.drift` is something else: how far the adjoint's own backward solve strays, which starts again
        from the forward states at every output time. This one exists for every gradient method.
        """
        _set(self._own, case.solver, case.gradient)
        distances: dict[str, list[float]] = {}

        def compare(name: str, there: Tensor, back: Tensor) -> None:
            found = [float((b - a).double().norm() / a.double().norm()) for b, a in zip(back, there, strict=True)]
            distances[name] = [max(pair) for pair in zip(found, distances.get(name, found), strict=True)]

        for name, block in ode_blocks(self._own).items():
            block.gradient = SolvedBack(case.gradient, num_times, partial(compare, name))
        self._run_without_graph()
        return distances

    def _run(self, *, with_times: bool) -> Pass:
        return self._backward(self._own, self._batch, self._precision, with_times=with_times)

    def _run_double(self) -> Pass:
        return self._backward(self._double, self._double_batch, "float64", with_times=True)

    def _run_without_graph(self) -> None:
        device = next(self._own.parameters()).device
        with torch.no_grad(), autocast(device, self._precision):
            self._task.loss(self._own, self._batch, self._progress)
        self._monitor.take()

    def _peak_bytes(self, case: Case) -> int | None:
        if isinstance(case.solver, RungeKutta) and case.solver.is_compiled:
            return None  # what is compiled makes its tensors unseen
        with TensorMemory() as memory:
            self._run(with_times=False)
        self._monitor.take()
        peak: int = memory.peak
        return peak

    def _backward(self, model: nn.Module, batch: Batch, precision: str, *, with_times: bool) -> Pass:
        model.zero_grad(set_to_none=True)
        blocks = ode_blocks(model)
        for block in blocks.values():
            if not isinstance(block.ts, nn.Parameter):
                block.ts = block.ts.detach().requires_grad_(with_times)
        device = next(model.parameters()).device
        with torch.enable_grad():
            with autocast(device, precision):
                total, weight, _ = self._task.loss(model, batch, self._progress)
            loss = total / weight.detach()
            loss.backward()
        times = {f"{name}.t{end}": _gradient(block.ts)[end] for name, block in blocks.items() for end in (0, 1)}
        return Pass(loss.item(), {name: _gradient(p) for name, p in model.named_parameters()}, times)


def _gradient(tensor: Tensor) -> Tensor:
    grad = torch.zeros_like(tensor) if tensor.grad is None else tensor.grad
    return grad.detach().cpu().double()


def _copy_of(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    own = copy.deepcopy(model).eval()
    if dtype is not None:  # Apple's GPUs have no float64
        own = own.to("cpu" if next(own.parameters()).device.type == "mps" else None, dtype)
    return own


def _set(model: nn.Module, solver: Solver, gradient: Gradient) -> None:
    for block in ode_blocks(model).values():
        block.solver, block.gradient = solver, gradient


class TensorMemory(TorchDispatchMode):
    """While open, counts the bytes of all living tensors that operations have made; `peak` is the maximum.

    Graphs and backward passes count too; earlier tensors, and the scratch space within an operation, do not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_new = func is torch.ops.aten.lift_fresh.default  # numbers from Python, which it hands on
        known = set() if is_new else {storage._cdata for storage in _storages((args, kwargs))}
        result = func(*args, **(kwargs or {}))
        for storage in _storages(result):
            if storage._cdata not in known:
                known.add(storage._cdata)
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return result

    def _add(self, size: int) -> None:
        self._now += size
        self.peak = max(self.peak, self._now)


def _storages(values: Any) -> list[torch.UntypedStorage]:
    """Of tensors in lists, tuples and dicts; `tree_iter` takes as long as the operation that they belong to."""
    if isinstance(values, torch.Tensor):
        return [values.untyped_storage()]
    if isinstance(values, dict):
        values = values.values()
    elif not isinstance(values, (list, tuple)):
        return []
    return [storage for value in values for storage in _storages(value)]
