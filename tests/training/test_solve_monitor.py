import pytest
import torch
from parts import make_part
from small_runs import build_ode_net

from node_cli.ode.solution import SolveStats
from node_cli.training.solve_monitor import SolveCosts, SolveMonitor


def rk4(num_steps):
    return make_part("solver", "rk4", num_steps=num_steps)


def test_a_model_without_solves_costs_nothing():
    costs = SolveMonitor(torch.nn.Linear(2, 2)).take()
    assert costs.scalars() == {}


def test_one_block_is_reported_under_the_plain_tags():
    model = build_ode_net("odenet_mlp", rk4(5), make_part("gradient", "direct"))
    monitor = SolveMonitor(model)
    model(torch.ones(3, 2))
    expected = {"nfe/forward": 20, "nfe/backward": 0, "solver/accepted": 5, "solver/rejected": 0}
    scalars = monitor.take().scalars()
    for figure in ("min", "mean", "first"):
        assert abs(scalars.pop(f"solver/step_{figure}") - 0.2) < 1e-12
    assert scalars == expected


def test_two_blocks_are_summed_and_reported_apart():
    model = build_ode_net("odenet_mlp", rk4(5), make_part("gradient", "adjoint"), num_blocks=2)
    model.blocks[1].solver = rk4(2)
    monitor = SolveMonitor(model)
    model(torch.ones(3, 2)).sum().backward()
    scalars = monitor.take().scalars()
    assert {tag: value for tag, value in scalars.items() if tag.startswith("nfe/")} == {
        "nfe/forward": 28,
        "nfe/backward": 30,
        "nfe/forward/blocks.0": 20,
        "nfe/backward/blocks.0": 21,  # the last slope of the solve once more
        "nfe/forward/blocks.1": 8,
        "nfe/backward/blocks.1": 9,
    }
    assert {tag: value for tag, value in scalars.items() if "accepted" in tag or "rejected" in tag} == {
        f"solver/{direction}{counter}{block}": value if counter == "accepted" else 0
        for direction in ("", "backward_")
        for counter in ("accepted", "rejected")
        for block, value in (("", 7), ("/blocks.0", 5), ("/blocks.1", 2))
    }
    expected = {
        "solver/step_min": 0.2,
        "solver/step_mean": 2 / 7,
        "solver/step_first": 0.35,
        **{f"solver/step_{figure}/blocks.0": 0.2 for figure in ("min", "mean", "first")},
        **{f"solver/step_{figure}/blocks.1": 0.5 for figure in ("min", "mean", "first")},
    }
    assert {tag: value for tag, value in scalars.items() if "step" in tag} == pytest.approx(expected)


def solve(first, *others, rejected, backward):
    steps = [first, *others]
    return SolveStats(9, len(steps), rejected, steps), SolveStats(4, backward, 1, [0.5] * backward)


def test_figures_of_unequal_steps():
    solves = [solve(0.1, 0.4, 0.5, rejected=2, backward=3), solve(0.3, 0.7, rejected=0, backward=2)]
    assert SolveCosts({"block": solves}, num_passes=2).scalars() == pytest.approx(
        {
            "nfe/forward": 9,
            "nfe/backward": 4,
            "solver/accepted": 2.5,
            "solver/rejected": 1,
            "solver/backward_accepted": 2.5,
            "solver/backward_rejected": 1,
            "solver/step_min": 0.1,
            "solver/step_mean": 0.4,
            "solver/step_first": 0.2,
        }
    )


def test_a_block_that_solves_more_than_once_in_a_pass_is_counted_each_time():
    model = build_ode_net("odenet_mlp", rk4(5), make_part("gradient", "adjoint"))
    monitor, block = SolveMonitor(model), model.blocks[0]
    y0 = torch.ones(3, 2)
    for _ in range(2):
        ys = block.solve(y0, torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64)).ys
        block(ys[-1]).sum().backward()
    scalars = monitor.take(num_passes=2).scalars()
    assert (scalars["nfe/forward"], scalars["nfe/backward"], scalars["solver/accepted"]) == (60, 60 + 2, 15)


def test_a_solver_that_tells_no_steps_has_no_figures_of_them():
    scalars = SolveCosts({"block": [(SolveStats(nfe=3), SolveStats())]}).scalars()
    assert scalars == {"nfe/forward": 3, "nfe/backward": 0, "solver/accepted": 0, "solver/rejected": 0}


def test_figures_are_means_over_the_passes_since_the_last_take():
    model = build_ode_net("odenet_mlp", rk4(1), make_part("gradient", "direct"))
    monitor = SolveMonitor(model)
    for num_steps in (2, 4):
        model.blocks[0].solver = rk4(num_steps)
        model(torch.ones(3, 2))
    costs = monitor.take(num_passes=2)
    assert costs.scalars()["nfe/forward"] == 12
    assert costs.step_sizes == {"blocks.0": pytest.approx([0.5] * 2 + [0.25] * 4)}
    assert monitor.take().scalars() == {}
