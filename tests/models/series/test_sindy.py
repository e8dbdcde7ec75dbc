"""Whether sparse identification finds the equations that made the data, and how terms are left out and printed."""

import pytest
import torch
from series_data import batch_of
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
    "drop": 0.0,
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


def test_equations_and_values_are_in_the_units_of_the_user():
    model = series_model("sindy", data={"is_log": False}, degree=2, trigonometric=True, start="first")
    field, units = model.dynamics, model.dynamics.units.of
    with torch.no_grad():
        field.coefficients.normal_(generator=torch.Generator().manual_seed(3))
        field.active[0, 1] = False
    batch = {**batch_of(), MASK: torch.ones(3, 6, 2, dtype=torch.bool)}
    x, y = units.values(batch[VALUES]).unbind(-1)
    terms = {
        "1": torch.ones_like(x),
        "hare": x,
        "lynx": y,
        "hare^2": x * x,
        "hare lynx": x * y,
        "lynx^2": y * y,
        "sin(hare)": x.sin(),
        "sin(lynx)": y.sin(),
        "cos(hare)": x.cos(),
        "cos(lynx)": y.cos(),
    }
    values = model.named_values()
    assert list(values) == [f"{channel}: {term}" for channel in ("hare", "lynx") for term in terms]
    for i, channel in enumerate(("hare", "lynx")):
        slope = sum(values[f"{channel}: {term}"] * each for term, each in terms.items())
        found = model.slopes(batch)[..., i] * units.std[i] / units.time_scale
        torch.testing.assert_close(found, slope.detach(), rtol=1e-6, atol=1e-6)
    first, second = model.equations()
    assert first.startswith("dhare/dyear = ")
    assert " hare +" not in first
    assert second.split(" = ")[1].split(" ")[0] == f"{values['lynx: 1'].item():.4g}"


def test_terms_are_left_out_once_at_each_point_and_for_good():
    model = series_model("sindy", threshold=0.5, prune_at=[0.3, 0.6], start="first")
    coefficients, active = model.dynamics.coefficients, model.dynamics.active
    with torch.no_grad():
        coefficients.fill_(1.0)
        coefficients[0, 0] = 0.4
        model.prune(0.2)
        assert active.all()
        model.prune(0.3)
        assert active.sum() == active.numel() - 1
        coefficients[0] = torch.tensor([2.0, 0.1, 1.0, 1.0, 1.0, 1.0])
        model.prune(0.5)
        assert active.sum() == active.numel() - 1
    other = series_model("sindy", threshold=0.5, prune_at=[0.3, 0.6], start="first")
    other.load_state_dict(model.state_dict())  # as a continued run
    other.prune(0.5)
    assert torch.equal(other.dynamics.active, active)
    other.prune(1.0)
    assert other.dynamics.active[0].tolist() == [False, False, True, True, True, True]
    assert other.penalty().item() == pytest.approx(1e-3 * 10)


def test_a_field_that_explodes_can_still_be_solved():
    model = series_model("sindy", start="first", solver=("dopri5", {"first_step": "chosen"}))
    with torch.no_grad():
        model.dynamics.coefficients[:, 3] = 30.0
    assert model(batch_of()).isfinite().all()
