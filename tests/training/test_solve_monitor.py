import torch
from small_runs import build_ode_net, build_part

from node_cli.training.solve_monitor import SolveMonitor


def rk4(num_steps):
    return build_part("solver", "rk4", num_steps=num_steps)


def test_a_model_without_solves_costs_nothing():
    costs = SolveMonitor(torch.nn.Linear(2, 2)).take()
    assert not costs
    assert costs.scalars() == {}


def test_one_block_is_reported_under_the_plain_tags():
    model = build_ode_net("odenet_mlp", rk4(5), build_part("gradient", "direct"))
    monitor = SolveMonitor(model)
    model(torch.ones(3, 2))
    expected = {"nfe/forward": 20, "nfe/backward": 0, "solver/accepted": 5, "solver/rejected": 0}
    scalars = monitor.take().scalars()
    assert abs(scalars.pop("solver/step_min") - 0.2) < 1e-12
    assert scalars == expected


def test_two_blocks_are_summed_and_reported_apart():
    model = build_ode_net("odenet_mlp", rk4(5), build_part("gradient", "adjoint"), num_blocks=2)
    model.blocks[1].solver = rk4(2)
    monitor = SolveMonitor(model)
    model(torch.ones(3, 2)).sum().backward()
    scalars = monitor.take().scalars()
    assert {tag: value for tag, value in scalars.items() if tag.startswith("nfe/")} == {
        "nfe/forward": 28,
        "nfe/backward": 28,
        "nfe/forward/blocks.0": 20,
        "nfe/backward/blocks.0": 20,
        "nfe/forward/blocks.1": 8,
        "nfe/backward/blocks.1": 8,
    }
    assert scalars["solver/accepted"] == 7
    assert abs(scalars["solver/step_min"] - 0.2) < 1e-12


def test_figures_are_means_over_solves_since_the_last_take():
    model = build_ode_net("odenet_mlp", rk4(1), build_part("gradient", "direct"))
    monitor = SolveMonitor(model)
    for num_steps in (2, 4):
        model.blocks[0].solver = rk4(num_steps)
        model(torch.ones(3, 2))
    costs = monitor.take()
    assert costs.nfe_forward == 12
    assert len(costs.step_sizes) == 6
    assert not monitor.take()
