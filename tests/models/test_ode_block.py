import copy
import math

import pytest
import torch
from parts import make_gradient, make_solver
from problems import Growth, Wave, times
from torch import nn

from node_cli.models.ode_block import OdeBlock, ode_blocks

Y0 = torch.tensor([[0.4, -0.2, 0.8]], dtype=torch.float64)


def block(field=None, solver="dopri5", gradient="adjoint", t0=0.0, t1=1.0, learn_times=False, **solver_keys):
    return OdeBlock(
        field or Wave(),
        make_solver(solver, **solver_keys),
        make_gradient(gradient),
        t0=t0,
        t1=t1,
        learn_times=learn_times,
    )


def test_maps_the_state_at_t0_to_the_state_at_t1():
    module = block(Growth(0.5), t0=1.0, t1=3.0, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(module(Y0), Y0 * torch.e, rtol=1e-7, atol=0)


def test_runs_back_to_where_it_came_from():
    field, tight = Wave(), {"rtol": 1e-9, "atol": 1e-9}
    there = block(field, t0=0.0, t1=1.0, **tight)
    back = block(field, t0=1.0, t1=0.0, **tight)
    torch.testing.assert_close(back(there(Y0)), Y0, rtol=1e-7, atol=1e-7)


def test_stats_tell_what_the_last_call_cost():
    field = Wave()
    module = block(field)
    assert (module.stats.nfe, module.backward_stats.nfe) == (0, 0)

    y1 = module(Y0)
    first = module.stats
    assert first.nfe == field.calls
    assert module.backward_stats.nfe == 0

    y1.sum().backward()
    assert module.backward_stats.nfe == field.calls - first.nfe > 0

    module(Y0)
    assert module.stats is not first
    assert module.backward_stats.nfe == 0
    module.eval()
    module(Y0)
    assert module.stats == first


def test_training_carries_the_first_step_over_to_the_next_batch():
    module = block(rtol=1e-6, atol=1e-6)
    module(Y0)
    chosen = module.stats
    assert module.first_steps.forward == chosen.next_first_step
    module(Y0)
    assert module.stats.step_sizes[0] == pytest.approx(chosen.next_first_step)
    assert module.stats.step_sizes[0] != chosen.step_sizes[0]


def test_the_backward_solve_of_the_adjoint_carries_its_own():
    module = block(rtol=1e-6, atol=1e-6)
    module(Y0).sum().backward()
    carried = module.first_steps.backward
    assert carried != module.first_steps.forward
    module(Y0).sum().backward()
    assert module.backward_stats.step_sizes[0] == pytest.approx(carried)


def test_judging_never_depends_on_what_was_solved_before():
    module = block(rtol=1e-6, atol=1e-6)
    fresh = module.eval()(Y0)
    module.train()(3 * Y0)
    kept = module.get_extra_state()
    assert torch.equal(module.eval()(Y0), fresh)
    assert torch.equal(module.get_extra_state(), kept)


@pytest.mark.parametrize("first_step", ["chosen", 0.1])
def test_nothing_is_carried_by_a_solver_that_does_not_ask_for_it(first_step):
    module = block(first_step=first_step)
    module(Y0).sum().backward()
    assert module.get_extra_state().tolist() == [0, 0]


def test_the_first_steps_are_part_of_the_state_and_continue_a_run():
    module, other, fresh = (block(rtol=1e-6, atol=1e-6) for _ in range(3))
    assert fresh.state_dict()["_extra_state"].tolist() == [0, 0]
    module(Y0).sum().backward()
    other.load_state_dict(module.state_dict())
    assert other.first_steps == module.first_steps
    assert None not in (other.first_steps.forward, other.first_steps.backward)
    assert torch.equal(module(Y0), other(Y0))
    assert other.stats == module.stats
    other.load_state_dict(fresh.state_dict())
    assert (other.first_steps.forward, other.first_steps.backward) == (None, None)


def test_two_calls_before_backward_keep_their_own_backward_stats():
    module = block()
    first, stats_of_first = module(Y0), module.backward_stats
    module(Y0)
    first.sum().backward()
    assert stats_of_first.nfe > 0
    assert module.backward_stats.nfe == 0


def test_every_solve_is_recorded_where_that_is_asked_for():
    module = block()
    module(Y0)
    assert module.solves is None
    module.solves = []
    other = copy.deepcopy(module)
    module(Y0).sum().backward()
    module.solve(Y0, times(0, 0.5, 2))
    assert [record.forward.nfe > 0 for record in module.solves] == [True, True]
    assert [record.backward.nfe > 0 for record in module.solves] == [True, False]
    assert module.solves[-1] == (module.stats, module.backward_stats)
    assert other.solves == []


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
def test_learned_times_have_their_gradient(gradient):
    module = block(Growth(0.8), gradient=gradient, t0=0.5, t1=-1.0, learn_times=True, rtol=1e-9, atol=1e-9)
    Growth.loss(module(times(0.5))).backward()
    expected = module.vector_field.gradients(0.5, 0.5, -1.0)
    assert module.ts.grad.tolist() == pytest.approx([expected["t0"], expected["t1"]], rel=1e-7)
    assert "ts" in dict(module.named_parameters())


def test_times_that_are_not_learned_are_neither_parameters_nor_in_the_checkpoint():
    module = block()
    assert "ts" not in dict(module.named_parameters())
    assert "ts" not in module.state_dict()


def test_solve_gives_all_asked_states():
    solution = block(Growth(1.0), rtol=1e-8, atol=1e-8).solve(Y0, times(0, 0.5, 2))
    assert solution.ys.shape == (3, 1, 3)
    torch.testing.assert_close(solution.ys, Y0 * torch.exp(times(0, 0.5, 2))[:, None, None], rtol=1e-6, atol=0)


def test_solve_takes_times_of_each_samples_own():
    y0, ts = torch.tensor([[1.0], [2.0]]), torch.stack([times(0, 0.5, 2), times(1, 0.25, 0.25)])
    solution = block(Growth(1.0), rtol=1e-8, atol=1e-8, batching="per_sample").solve(y0, ts)
    expected = y0 * torch.exp(ts - ts[:, :1]).t()[..., None]
    torch.testing.assert_close(solution.ys, expected, rtol=1e-6, atol=0, check_dtype=False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_state_of_half_precision_becomes_float32(dtype):
    module = OdeBlock(
        Wave(dtype=torch.float32), make_solver("rk4"), make_gradient("direct"), t0=0.0, t1=1.0, learn_times=False
    )
    assert module(torch.ones(2, 3, dtype=dtype)).dtype == torch.float32


def test_ode_blocks_are_found_by_name():
    model = nn.ModuleDict({"stem": nn.Linear(2, 2), "blocks": nn.Sequential(block(), block())})
    assert list(ode_blocks(model)) == ["blocks.0", "blocks.1"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"t0": 1.0}, "t1 must differ from t0, got t0=1.0 t1=1.0"),
        ({"t1": float("inf")}, "t0 and t1 must be finite, got t0=0.0 t1=inf"),
        ({"t0": float("nan")}, "t0 and t1 must be finite, got t0=nan t1=1.0"),
        (
            {"solver": "scipy", "gradient": "direct"},
            (
                'gradient="direct" cannot differentiate a solve by Scipy, which runs outside autograd: '
                'take gradient="adjoint"'
            ),
        ),
    ],
)
def test_refuses_in_one_line(keys, message):
    with pytest.raises(ValueError) as error:
        block(**keys)
    assert str(error.value) == message


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
@pytest.mark.parametrize("ts", [(0.0, 0.4, 1.0), (1.0, 0.4, 0.0)])
def test_the_kinetic_energy_is_integrated_with_the_state(gradient, ts):
    """dy/dt = a y from y0: the energy is a^2 |y0|^2 (exp(2 a T) - 1) / 2 a, whichever way the time runs."""
    rate, y0 = 0.5, torch.tensor([[[0.4, -0.2]], [[0.8, 1.0]]], dtype=torch.float64)
    module = block(Growth(rate), gradient=gradient, rtol=1e-8, atol=1e-8)
    plain = module.solve(y0, torch.tensor(ts, dtype=torch.float64)).ys
    module.energies = []
    found = module.solve(y0, torch.tensor(ts, dtype=torch.float64)).ys
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-7)
    (energy,) = module.energies
    total = ts[-1] - ts[0]
    true = rate**2 * abs(math.expm1(2 * rate * total)) / (2 * rate) * y0.square().mean((1, 2))
    torch.testing.assert_close(energy, true, rtol=1e-6, atol=0)
    energy.sum().backward()
    (weight,) = module.vector_field.parameters()
    assert weight.grad.item() == pytest.approx(of_rate(rate, total) * y0.square().mean((1, 2)).sum().item(), rel=1e-5)


def of_rate(rate, total, step=1e-6):
    """How the energy of |y0| = 1 changes with the rate."""
    low, high = (a * abs(math.expm1(2 * a * total)) / 2 for a in (rate - step, rate + step))
    return (high - low) / (2 * step)


def test_samples_with_times_of_their_own_have_energies_of_their_own():
    module = block(Growth(0.5), rtol=1e-8, atol=1e-8, batching="per_sample")
    module.energies = []
    module.solve(torch.ones(2, 3).double(), torch.tensor([[0.0, 1.0], [0.0, 2.0]], dtype=torch.float64))
    torch.testing.assert_close(module.energies[0], torch.tensor([1.0, 2.0]).double().expm1() * 0.25, rtol=1e-6, atol=0)
