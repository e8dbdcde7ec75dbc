"""What a pass costs is what it costs in training, and the model that is audited is left alone."""

import pytest
import torch
from small_models import TWO_BLOCKS, Squares, make_batch, make_case, make_net, make_passes, mean_loss, state_of

from node_cli.audit.backward_pass import BackwardPass
from node_cli.models.ode_block import ode_blocks
from node_cli.ode.solution import FirstSteps
from node_cli.training.solve_monitor import SolveMonitor

pytestmark = pytest.mark.slow

CASES = [
    ("rk4", "direct"),
    ("dopri5", "direct"),
    ("dopri5", "checkpoint"),
    ("dopri5", "adjoint"),
    ("torchdiffeq", "adjoint"),
]


@pytest.mark.parametrize("learn_times", [False, True])
@pytest.mark.parametrize(("solver", "gradient"), CASES)
def test_evaluations_are_those_of_a_step_in_training(solver, gradient, learn_times):
    case = make_case(solver, gradient)
    changes = {"num_blocks": 2, "learn_times": learn_times}
    net = make_net("odenet_mlp", case, torch.float32, **changes).train()
    monitor = SolveMonitor(net)
    mean_loss(Squares(), net, make_batch("odenet_mlp", torch.float32)).backward()
    counts = monitor.take().scalars()
    passes = make_passes("odenet_mlp", case, torch.float32, **changes)
    for _ in range(2):  # whatever else was measured before
        cost = passes.cost_of(case)
        assert (cost.nfe_forward, cost.nfe_backward) == (counts["nfe/forward"], counts["nfe/backward"])
        assert cost.seconds > 0
        passes.reconstruction(case, num_times=3)
        passes.of(make_case("euler", num_steps=5))


def test_memory_is_that_of_the_gradient_method():
    """A step of rk4 more: four states with `direct`, one with `checkpoint`."""

    def peak(gradient, num_steps):
        case = make_case("rk4", gradient, num_steps=num_steps)
        return make_passes("odenet", case, torch.float32).cost_of(case).peak_bytes

    direct, checkpoint = (peak(gradient, 10) - peak(gradient, 5) for gradient in ("direct", "checkpoint"))
    state = 4 * 6 * 4 * 2 * 2  # bytes: six samples of four channels, 2x2 after the stem
    assert checkpoint == pytest.approx(5 * state, rel=0.1)
    assert direct > 4 * 5 * state


def test_what_is_compiled_has_no_count_of_bytes():
    case, compiled = make_case("euler"), make_case("euler", compile="vector_field")
    assert make_passes("odenet_mlp", case).cost_of(case).peak_bytes > 0
    assert make_passes("odenet_mlp", case)._peak_bytes(compiled) is None


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_the_model_stays_as_it_is(gradient):
    """Weights, gradients, modes, the first steps of its solves; and nobody's random numbers are drawn."""
    case = make_case("dopri5", gradient)
    net = make_net("odenet", case, torch.float32, **TWO_BLOCKS).train()
    net.stem.eval()
    task, batch = Squares(), make_batch("odenet", torch.float32)
    monitor = SolveMonitor(net)
    mean_loss(task, net, batch).backward()
    next(iter(ode_blocks(net).values())).first_steps = FirstSteps(0.25, 0.125)
    before, random = state_of(net), torch.get_rng_state()
    stats = [block.stats for block in ode_blocks(net).values()]

    passes = BackwardPass(net, task, batch, "float32")
    other = make_case("euler", "adjoint")
    for each in (case, other):
        passes.of(each)
        passes.cost_of(each)
        passes.exact(each.solver)
        passes.reconstruction(each, num_times=3)
    passes.of_the_ode(1e-3)
    monitor.take()  # of this pass, and of those of copies up to here

    after = state_of(net)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)
    for block, known in zip(ode_blocks(net).values(), stats, strict=True):
        assert (block.solver, block.gradient) == (case.solver, case.gradient)
        assert block.stats is known
    mean_loss(task, net, batch)
    assert monitor.take().scalars()["nfe/forward"] == sum(block.stats.nfe for block in ode_blocks(net).values())
