"""What each gradient costs: evaluations forward and backward, first steps carried over, and memory."""

import gc
import weakref
from functools import cache

import pytest
import torch
from gradient_checks import EXACT, FORWARD, GRADIENTS, adaptive, fixed, solve, start
from problems import Wave, times
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from node_cli.ode.solution import FirstSteps
from node_cli.ode.tableaus import ADAPTIVE_METHODS, TABLEAUS

pytestmark = pytest.mark.slow


def costs(gradient, solver, ts=FORWARD, first_steps=None):
    """Statistics of a solve and its backward pass, whose evaluations the vector field has counted too."""
    field = Wave()
    solution = solve(gradient, solver, field, start(), times(*ts), first_steps)
    assert solution.stats.nfe == field.calls
    assert solution.backward_stats.nfe == 0
    solution.ys.sum().backward()
    assert solution.stats.nfe + solution.backward_stats.nfe == field.calls
    return solution.stats, solution.backward_stats


def own_stages(method):
    """Evaluations of a step that no step before has made."""
    return TABLEAUS[method].num_stages - TABLEAUS[method].is_fsal


@pytest.mark.parametrize("method", TABLEAUS)
def test_evaluations_on_a_grid(method):
    solver, per_step, shared = fixed(method, num_steps=2), own_stages(method), TABLEAUS[method].is_fsal
    expected = {"direct": 0, "checkpoint": 6 * per_step, "adjoint": 3 * (2 * per_step + shared) + 1}
    for gradient, nfe in expected.items():
        stats, backward_stats = costs(gradient, solver)
        assert (stats.nfe, backward_stats.nfe) == (6 * per_step + shared, nfe)


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_evaluations_in_chosen_steps(method, gradient, batching):
    """Stages of an attempt that a refusal has not spoilt are kept: the first one, and a last one that is shared."""
    solver = adaptive(method, rtol=1e-3, atol=1e-3, outputs="step", batching=batching, first_step=5.0)
    steps = []
    solution = solver.integrate(Wave(), start().detach(), times(*FORWARD), record=lambda step, _: steps.append(step))
    stats, backward_stats = costs(gradient, solver)
    assert stats.nfe == solution.stats.nfe
    if batching == "joint":
        attempts = stats.num_accepted + stats.num_rejected
        assert stats.num_accepted == len(steps)
        assert stats.num_rejected > 0 or TABLEAUS[method].order > 3
        first = 1 if TABLEAUS[method].is_fsal else stats.num_accepted
        assert stats.nfe == first + attempts * (TABLEAUS[method].num_stages - 1)
    assert backward_stats.nfe == (len(steps) * own_stages(method) if gradient == "checkpoint" else 0)


@pytest.mark.parametrize(("ts", "more"), [((0.0, 1.5), 0), ((0.0, 1.4, 1.5), 1)], ids=["no output", "output"])
def test_checkpoint_evaluates_a_last_slope_only_for_an_output_inside_the_last_step(ts, more):
    solver = adaptive(rtol=1e3, atol=1e3, first_step=1.0)
    stats, backward_stats = costs("checkpoint", solver, ts)
    assert (stats.nfe, backward_stats.nfe) == (1 + 2 * 6, 2 * 6 + more)


def test_evaluations_of_an_adaptive_adjoint():
    stats, backward_stats = costs("adjoint", adaptive(rtol=1e-4, atol=1e-4))
    assert stats.nfe == 1 + 6 * (stats.num_accepted + stats.num_rejected)
    attempts = backward_stats.num_accepted + backward_stats.num_rejected
    assert backward_stats.nfe == 1 + 3 + 6 * attempts  # one to see that the field is the same, one a solve
    assert len(backward_stats.step_sizes) == backward_stats.num_accepted


def test_a_second_backward_pass_of_direct_runs_its_steps_again():
    field, y0 = Wave(), start()
    solution = solve("direct", fixed("dopri5", num_steps=2), field, y0, times(*FORWARD))
    solution.ys.sum().backward(retain_graph=True)
    assert solution.backward_stats.nfe == 0
    solution.ys.sum().backward()
    assert solution.backward_stats.nfe == 6 * 6


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_first_steps_are_carried_over(gradient):
    solver, first_steps = adaptive(rtol=1e-4, atol=1e-4, first_step="carried"), FirstSteps()
    stats, _ = costs(gradient, solver, first_steps=first_steps)
    carried = first_steps.forward
    assert carried == stats.next_first_step
    assert carried is not None
    assert (first_steps.backward is not None) == (gradient == "adjoint")
    again, backward_again = costs(gradient, solver, first_steps=first_steps)
    assert stats.nfe == 1 + 6 * (stats.num_accepted + stats.num_rejected)
    assert again.nfe == 1 + 6 * (again.num_accepted + again.num_rejected)
    assert again.step_sizes[0] == pytest.approx(carried, rel=1e-12)
    if gradient == "adjoint":
        attempts = backward_again.num_accepted + backward_again.num_rejected
        assert backward_again.nfe == 1 + 3 + 6 * attempts


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_first_steps_that_are_chosen_are_forgotten(gradient):
    first_steps = FirstSteps()
    costs(gradient, adaptive(rtol=1e-4, atol=1e-4), first_steps=first_steps)
    assert first_steps == FirstSteps()


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_first_steps_are_tried_first(gradient):
    first_steps = FirstSteps(forward=0.123, backward=0.0456)
    stats, backward_stats = costs(
        gradient, adaptive(rtol=1e-3, atol=1e-3, first_step="carried"), first_steps=first_steps
    )
    assert stats.step_sizes[0] == pytest.approx(0.123)
    if gradient == "adjoint":
        assert backward_stats.step_sizes[0] == pytest.approx(0.0456)


class Memory(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, as long as something holds them: the same on every machine.

    Work space inside an operation is not seen.
    """

    def __init__(self):
        super().__init__()
        self.held, self.now, self.peak = set(), 0, 0

    def __enter__(self):
        gc.collect()
        gc.disable()  # when it runs depends on what ran before
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        gc.enable()
        gc.collect()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, torch.Tensor):
                self._hold(tensor.untyped_storage())
        return result

    def _hold(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key not in self.held:
            self.held.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, key, size)

    def _release(self, key, size):
        self.held.remove(key)
        self.now -= size


BATCH, WIDTH = 16, 8
STATE = 4 * BATCH * WIDTH


class Network(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(WIDTH, 64), nn.Tanh(), nn.Linear(64, WIDTH))

    def forward(self, t, y):
        return super().forward(y)


@cache
def memory(gradient, num_steps, *, backward=True):
    with Memory() as memory:
        field, y0 = Network(), torch.ones(BATCH, WIDTH)
        with torch.set_grad_enabled(backward):
            ys = solve(gradient, fixed(num_steps=num_steps), field, y0, times(0, 1)).ys
            if backward:
                ys[-1].sum().backward()
    return memory


def test_the_memory_of_all_tensors_is_seen():
    with Memory() as memory:
        a = torch.zeros(1000)
        b = a.view(10, 100)
        c = b * 2
        del a, c
        assert (memory.now, memory.peak) == (4000, 8000)
        del b
        assert memory.now == 0


def test_checkpoint_takes_a_tenth_of_the_memory_of_direct():
    assert memory("checkpoint", 200).peak < memory("direct", 200).peak / 10


def test_the_memory_of_checkpoint_grows_by_one_state_per_step():
    assert memory("checkpoint", 200).peak - memory("checkpoint", 100).peak == pytest.approx(100 * STATE, rel=0.02)


def test_the_memory_of_checkpoint_holds_the_evaluations_of_one_step():
    compared = 3 * STATE  # where the step ended, where it ends when it is run again, and the difference
    assert memory("checkpoint", 1).peak <= memory("direct", 1).peak + compared


def test_the_memory_of_adjoint_does_not_grow():
    assert memory("adjoint", 50).peak - memory("adjoint", 25).peak < STATE


@pytest.mark.parametrize("gradient", EXACT)
def test_without_a_backward_pass_nothing_is_kept(gradient):
    assert memory(gradient, 50, backward=False).peak - memory(gradient, 25, backward=False).peak < 2 * STATE


class Saved:
    """What autograd has saved for the gradient of one evaluation; gone when its graph is."""


class Remembered(Wave):
    """Knows of which of its evaluations something still holds the graph."""

    def __init__(self):
        super().__init__()
        self.slopes = []

    def forward(self, t, y):
        saved = Saved()
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (saved, tensor.detach()), lambda pair: pair[1]):
            dy = super().forward(t, y)
        self.slopes.append(weakref.ref(saved))
        return dy

    def num_held(self):
        gc.collect()
        return sum(slope() is not None for slope in self.slopes)


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "ralston"])
def test_evaluations_are_held_for_accepted_steps_of_direct_alone(method, gradient, batching):
    solver = adaptive(method, rtol=1e-3, atol=1e-3, batching=batching, first_step=5.0)
    field, steps = Remembered(), []
    with torch.no_grad():
        solver.integrate(field, start(), times(0, 1.5), record=lambda step, _: steps.append(step))
    field.slopes.clear()
    solution = solve(gradient, solver, field, start(), times(0, 1.5))
    assert solution.stats.num_rejected > 0
    expected = len(steps) * own_stages(method) + TABLEAUS[method].is_fsal
    assert field.num_held() == (expected if gradient == "direct" else 0)
    solution.ys.sum().backward()
    assert field.num_held() == 0


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_backward_pass_frees_what_the_solve_kept(gradient):
    assert memory(gradient, 200).now - memory(gradient, 1).now < STATE
