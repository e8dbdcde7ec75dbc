"""The exact gradient of a pass is that of the steps that were made, whatever made them."""

import copy

import pytest
import torch
from small_models import TWO_BLOCKS, Squares, make_batch, make_case, make_net, make_passes, mean_loss
from training.small_runs import image_dataset

from node_cli.audit.backward_pass import BackwardPass
from node_cli.audit.comparison import difference
from node_cli.audit.fixed_steps import FixedSteps
from node_cli.audit.stand_ins import Recorder, Replayer
from node_cli.models.ode_block import ode_blocks
from node_cli.tasks.classification import Classification

SOLVERS = {
    "rk4": {"num_steps": 2},
    "euler": {"num_steps": None, "step_size": 0.3},
    "dopri5": {"rtol": 1e-5, "atol": 1e-5},
    "bosh3": {"outputs": "step"},
    "dopri8": {},
    "tsit5": {"batching": "per_sample", "rtol": 1e-4, "atol": 1e-6},
    "torchdiffeq": {},
}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["odenet", "odenet_mlp"])
def test_direct_is_exact(kind, solver):
    case = make_case(solver, **SOLVERS[solver])
    passes = make_passes(kind, case, **TWO_BLOCKS)
    made, (exact, rounding) = passes.of(case), passes.exact(case.solver)
    assert made.loss == pytest.approx(exact.loss, rel=1e-13)
    assert difference(made.parameters, exact.parameters).relative_error < 1e-12
    assert made.times.keys() == {"blocks.0.t0", "blocks.0.t1", "blocks.1.t0", "blocks.1.t1"}
    assert difference(made.times, exact.times).relative_error < 1e-12
    assert rounding < 1e-12


@pytest.mark.parametrize("solver", ["euler", "dopri5", "tsit5"])
def test_exact_is_the_slope_of_the_loss_over_the_same_steps(solver):
    """Central differences along a direction for each parameter, the learned times among them."""
    case = make_case(solver, **SOLVERS[solver])
    exact, _ = make_passes("odenet_mlp", case, **TWO_BLOCKS).exact(case.solver)
    model, batch = make_net("odenet_mlp", case, **TWO_BLOCKS), make_batch("odenet_mlp")
    recorder = Recorder()
    for block in ode_blocks(model).values():
        block.gradient = recorder

    def loss_with(name, change):
        moved = copy.deepcopy(model)
        moved.get_parameter(name).add_(change)
        replayer = Replayer(recorder.solves)
        for block in ode_blocks(moved).values():
            block.gradient = replayer
        return mean_loss(Squares(), moved, batch).item()

    with torch.no_grad():
        model(batch["inputs"])
        generator = torch.Generator().manual_seed(0)
        for name, gradient in exact.parameters.items():
            step = 1e-5 * torch.randn(gradient.shape, generator=generator, dtype=torch.float64)
            rise = (loss_with(name, step) - loss_with(name, -step)) / 2
            assert rise == pytest.approx((gradient * step).sum().item(), rel=1e-6, abs=1e-14)


def test_exact_is_that_of_the_recorded_steps_and_not_of_others():
    case, finer = make_case("euler", num_steps=2), make_case("euler", num_steps=3)
    passes = make_passes("odenet_mlp", case)
    made, (exact, _) = passes.of(case), passes.exact(finer.solver)
    assert difference(made.parameters, exact.parameters).relative_error > 1e-3


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_in_float32_exact_is_float64_and_the_rest_is_rounding(gradient):
    case = make_case("dopri5", gradient)
    passes = make_passes("odenet_mlp", case, torch.float32)
    made, (exact, rounding) = passes.of(case), passes.exact(case.solver)
    assert all(g.dtype == torch.float64 for g in made.parameters.values())
    assert any((g != g.float()).any() for g in exact.parameters.values())
    assert 1e-9 < rounding < 1e-5
    assert 0 < difference(made.parameters, exact.parameters).relative_error < 5 * rounding


def test_in_bfloat16_the_rounding_is_that_of_autocast():
    case = make_case("rk4", num_steps=2)
    full, half = (make_passes("odenet_mlp", case, torch.float32, precision) for precision in ("float32", "bfloat16"))
    error = difference(half.of(case).parameters, full.of(case).parameters).relative_error
    exact, rounding = half.exact(case.solver)
    assert 1e-3 < error < 0.1
    assert difference(half.of(case).parameters, exact.parameters).relative_error == pytest.approx(rounding, rel=0.5)
    assert difference(exact.parameters, full.exact(case.solver)[0].parameters).relative_error < 1e-6


def test_steps_are_taken_again_under_autocast():
    case = make_case("rk4", num_steps=3)
    net, y0 = make_net("odenet_mlp", case, torch.float32), make_batch("odenet_mlp", torch.float32)["inputs"]
    field, ts = net.blocks[0].vector_field, torch.tensor([0.0, 1.0], dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        made = case.solve(field, y0, ts).ys
        steps = FixedSteps(case.solver, field, y0, ts)
        again = steps(field, y0, ts)
    assert torch.equal(steps.solution.ys, made)
    assert again.dtype == torch.float32
    in_float32 = case.solve(field, y0, ts).ys
    assert (again - made).norm() < 0.1 * (in_float32 - made).norm()


def test_class_numbers_stay_whole_numbers_and_a_batch_keeps_its_names():
    """Cross entropy takes floating-point targets for probabilities; the task reads `batch["targets"]`."""
    case = make_case("euler")
    net = make_net("odenet", case, torch.float32)
    batch = next(image_dataset().train_batches(4, seed=0, epoch=0))
    task = Classification(("a", "b"), label_smoothing=0.0)
    passes = BackwardPass(net, task, batch, "float32")
    made, (exact, _) = passes.of(case), passes.exact(case.solver)
    assert made.loss == mean_loss(task, net.eval(), batch).item()
    assert difference(made.parameters, exact.parameters).relative_error < 1e-4


def test_a_parameter_that_is_not_used_has_a_gradient_of_zero():
    case = make_case("euler")
    net = make_net("odenet_mlp", case)
    net.idle = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    passes = BackwardPass(net, Squares(), make_batch("odenet_mlp"), "float32")
    for made in (passes.of(case), passes.exact(case.solver)[0], passes.of_the_ode(1e-3)[0]):
        assert made.parameters["idle"].tolist() == [0, 0, 0]
        assert made.parameters.keys() == dict(net.named_parameters()).keys()
