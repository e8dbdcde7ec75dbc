"""Whether sparse identification finds the equations that made the data, and how terms are left out and printed."""

import pytest
import torch
from series_models import series_model

from node_cli.datasets.series.generated import LOTKA_VOLTERRA
from node_cli.datasets.series.generated import lotka_volterra as make_lotka_volterra
from node_cli.series import MASK, TIMES, VALUES
from node_cli.tasks.series_cutting import windows
from node_cli.tasks.smoothing import smooth

NOISY = {
    "num_series": 8,
    "num_times": 100,
    "t1": 10.0,
    "noise": 0.02,
    "irregular": False,
    "data_seed": 0,
    "split": "series",
    "val": 1,
    "test": 1,
    "split_seed": 0,
    "window": None,
    "stride": 1,
    "context": 1,
    "log": False,
    "normalize": True,
    "time_scale": None,
}


def minimise(loss, parameters, iterations):
    optimizer = torch.optim.LBFGS(parameters, max_iter=iterations, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)


def test_finds_the_equations_of_lotka_and_volterra_in_noisy_data():
    dataset = make_lotka_volterra(**NOISY)
    batch = {name: t.double() if t.is_floating_point() else t for name, t in dataset.splits["train"].items()}
    names = ("units", "channel_names", "time_name")
    model = series_model(
        "sindy", data={name: dataset.offers[name] for name in names}, start="first", solver=("rk4", {"num_steps": 1})
    )
    smoothed, slopes = smooth(batch[TIMES], batch[VALUES], batch[MASK])
    everything = {**batch, VALUES: smoothed, MASK: torch.ones_like(batch[MASK])}
    pieces = windows(batch, 9)
    coefficients = [model.dynamics.coefficients]
    for progress in (0.3, 0.5):
        minimise(lambda: (model.slopes(everything) - slopes).square().mean() + model.penalty(), coefficients, 60)
        model.prune(progress)
    minimise(lambda: (model(pieces) - pieces[VALUES])[pieces["target"]].square().mean(), coefficients, 8)
    alpha, beta, gamma, delta = LOTKA_VOLTERRA
    found = {name: value.item() for name, value in model.named_values().items() if value != 0}
    assert found == pytest.approx(
        {
            "prey: prey": alpha,
            "prey: prey predator": -beta,
            "predator: predator": -gamma,
            "predator: prey predator": delta,
        },
        rel=0.05,
    )
