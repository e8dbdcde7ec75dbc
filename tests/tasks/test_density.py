"""Log-densities in the user's units, what is minimised, and how both depend on noise."""

from __future__ import annotations

import math
import re

import pytest
import torch

from node_cli.datasets.scaling import Scaling
from node_cli.flow import DensityModel, LogDensity
from node_cli.tasks.density import Density
from node_cli.tasks.density_space import Space


class Normal(DensityModel):
    """Knows its data to be normal, and moves them not at all; the error of each probe is what it sums to."""

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(()))
        self.starts = []

    def fit_scale(self, samples):
        self.mean = samples.mean(0)

    def scaled(self, samples):
        return samples

    def velocity(self, t, y, labels=None):
        return self.bias.detach() + torch.zeros_like(y)

    def log_density(self, samples, probes, labels=None, integrals=(), start=0.0):
        self.starts.append(start)
        exact = torch.distributions.Normal(0.0, 1.0).log_prob(samples).flatten(1).sum(1)[:, None]
        errors = 0.0 if probes is None else probes.flatten(2).sum(2).T
        found = {name: torch.full_like(exact[:, 0], k) for k, name in enumerate(integrals, 2)}
        return LogDensity(exact + errors + self.bias.detach(), samples, found, 3)

    def carried(self, base, labels=None, num_times=2):
        shift = 0 if labels is None else 10 * labels.view(-1, *(1,) * (base.dim() - 1))
        return torch.stack([base, base + shift])

    @property
    def nfe(self):
        return 3


SETTINGS = {
    "objective": "flow_matching",
    "coupling": "independent",
    "sigma": 0.0,
    "trace": "hutchinson",
    "noise": "rademacher",
    "num_probes": 1,
    "eval_probes": 4,
    "condition": None,
    "kinetic": 0.0,
    "jacobian": 0.0,
    "total_derivative": 0.0,
    "steer": 0.0,
    "logit": 0.05,
}


def density(shape=(2,), **settings):
    of_data = ("class_names", "class_counts", "scaling", "num_levels", "has_source")
    given = {key: settings.pop(key) for key in of_data if key in settings}
    return Density(shape, **given, **(SETTINGS | settings))


def generator():
    return torch.Generator().manual_seed(0)


POINTS = {"inputs": torch.tensor([[0.5, -1.0], [2.0, 0.25], [0.0, 0.0]])}


def test_densities_are_those_of_values_before_the_dataset_scaled_them():
    """A normal density of scaled values is one of std 2 and 5 around 1 and 3 in the user's units."""
    task = density(scaling=Scaling((1.0, 3.0), (2.0, 5.0)), trace="exact")
    rows = task.predict(Normal(), POINTS, generator())
    true = torch.distributions.Normal(torch.tensor([1.0, 3.0]), torch.tensor([2.0, 5.0]))
    values = POINTS["inputs"] * torch.tensor([2.0, 5.0]) + torch.tensor([1.0, 3.0])
    torch.testing.assert_close(rows["log_prob"], true.log_prob(values).sum(1))
    found = task.metrics(POINTS, rows)
    assert found["nll"] == pytest.approx(-true.log_prob(values).sum(1).mean().item())
    assert found["bits_per_dim"] == pytest.approx(found["nll"] / 2 / math.log(2))
    torch.testing.assert_close(task.space.values_of(POINTS["inputs"]), values)


@pytest.mark.parametrize("logit", [0.05, 1e-6, None])
def test_whole_numbers_become_real_ones_and_come_back(logit):
    space = Space((1, 2, 2), Scaling((0.3,), (0.4,)), 17, logit)
    levels = torch.tensor([0, 3, 15, 16]).float().view(1, 1, 2, 2)
    inputs = (levels / 16 - 0.3) / 0.4
    torch.testing.assert_close(space.values(inputs), levels)
    states, log_det = space.states(inputs.double(), generator())
    assert torch.equal(space.values_of(states), levels.to(torch.uint8))
    again, _ = space.states(inputs, generator())
    torch.testing.assert_close(again.double(), states, atol=1e-4, rtol=1e-4)  # the same noise in every dtype
    x = ((levels.double() + torch.rand(1, 1, 2, 2, generator=generator())) / 17).requires_grad_()
    y = 2 * x - 1 if logit is None else (logit + (1 - 2 * logit) * x).logit()
    (slopes,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_det, (slopes / 17).log().flatten(1).sum(1))


def test_a_flow_that_knows_nothing_needs_the_bits_of_a_uniform_pixel():
    """2x - 1 of a uniform x is uniform from -1 to 1: with its density, each pixel costs log2(17) bits."""
    space = Space((1, 8, 8), None, 17, None)
    _, log_det = space.states(torch.zeros(1, 1, 8, 8), None)
    assert space.bits_per_dim(-(log_det.item() - 64 * math.log(2))) == pytest.approx(math.log2(17))


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
def test_probes_are_the_same_for_the_same_generator_and_tell_their_error(noise):
    task, model = density(noise=noise, eval_probes=64), Normal()
    rows = task.predict(model, POINTS, generator())
    assert torch.equal(rows["log_prob"], task.predict(model, POINTS, generator())["log_prob"])
    exact = density(trace="exact").predict(model, POINTS, generator())["log_prob"]
    assert ((rows["log_prob"] - exact).abs() < 4 * rows["std_error"]).all()
    assert rows["std_error"].tolist() == pytest.approx([(2 / 64) ** 0.5] * 3, rel=0.4)
    probes = task.trace.probes(torch.zeros(500, 2), 20, None).reshape(-1, 2)
    torch.testing.assert_close(probes.T.cov(), torch.eye(2), atol=0.05, rtol=0)
    assert (probes.abs() == 1).all() == (noise == "rademacher")


def test_a_likelihood_has_penalties_beside_nats_a_dimension():
    task = density(objective="likelihood", trace="exact", kinetic=0.1, total_derivative=0.01)
    loss = task.loss(Normal().eval(), POINTS, 0.0)
    nll = -task.predict(Normal(), POINTS, generator())["log_prob"].sum()
    torch.testing.assert_close(loss.total, nll + 2 * 3 * (0.1 * 2 + 0.01 * 3))
    assert {name: value.item() for name, value in loss.metrics.items()} == {
        "nll": pytest.approx(nll.item()),
        "kinetic": 6,
        "total_derivative": 9,
    }


def test_the_base_moves_in_training_alone():
    task, model = density(objective="likelihood", trace="exact", steer=0.3), Normal()
    task.loss(model.eval(), POINTS, 0.0)
    for _ in range(20):
        task.loss(model.train(), POINTS, 0.0)
    first, *others = model.starts
    assert first == 0
    assert len({*others}) == 20
    assert -0.3 < min(others) < 0 < max(others) < 0.3


def test_slopes_are_matched_with_those_of_straight_paths():
    """The field is 0: what is missed is sample - noise, of which the squares are known for noise that is given."""
    source = torch.tensor([[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]])
    batch = {**POINTS, "source": source}
    assert density().loss(Normal().eval(), batch, 0.0).total.item() == pytest.approx(
        (POINTS["inputs"] - source).square().mean(1).sum().item()
    )
    shortest = density(coupling="ot").loss(Normal().eval(), batch, 0.0).total
    pairs = torch.tensor([1, 2, 0]), torch.tensor([0, 2, 1])
    costs = [(POINTS["inputs"] - source[order]).square().mean(1).sum().item() for order in pairs]
    assert shortest.item() == pytest.approx(min(costs))


def test_noise_is_new_in_training_and_the_same_elsewhere():
    task, model = density(), Normal()
    losses = [task.loss(model.eval(), POINTS, 0.0).total.item() for _ in range(2)]
    assert losses[0] == losses[1]
    losses = [task.loss(model.train(), POINTS, 0.0).total.item() for _ in range(2)]
    assert losses[0] != losses[1]


def test_samples_have_labels_as_frequent_as_in_training():
    task = density(condition="label", class_names=("a", "b"), class_counts=(300, 100))
    rows = task.samples(Normal(), 400, generator())
    assert rows["targets"].sum().item() == pytest.approx(100, abs=30)
    assert torch.equal(rows["sample"].mean(1) > 5, rows["targets"] == 1)
    assert task.inputs == ("inputs", "targets")
    assert set(density().samples(Normal(), 3, generator())) == {"sample"}
    assert task.samples(Normal(), 9, generator(), "b")["targets"].tolist() == [1] * 9
    for one, told in ((task, "(a, b), got c"), (density(), "(none, as task.condition=null), got c")):
        with pytest.raises(ValueError, match=re.escape(f"label must be one that samples were conditioned by {told}")):
            one.samples(Normal(), 1, generator(), "c")


def test_a_source_is_carried_to_samples_which_are_compared_with_the_data():
    task = density(has_source=True)
    batch = {**POINTS, "source": POINTS["inputs"][[2, 0, 1]] + torch.tensor([0.3, 0.4])}
    found = task.metrics(batch, task.predict(Normal(), batch, generator()))
    assert set(found) == set(task.metric_names) == {"loss", "wasserstein"}
    assert found["wasserstein"] == pytest.approx(0.5)
    assert (task.objective, task.inputs) == (("wasserstein", "min"), ("inputs", "source"))
    points = torch.randn(40, 2, generator=generator())
    splits = {name: {"inputs": points, "source": points + 1} for name in ("train", "val", "test")}
    fit = task.fit_details(Normal(), splits)
    assert fit == {"wasserstein": {"samples": pytest.approx(2**0.5), "floor": pytest.approx(0.9, abs=0.5)}}
    with pytest.raises(ValueError, match=r"^samples=3: this run carries a source of its dataset"):
        task.samples(Normal(), 3, generator())
    with pytest.raises(ValueError, match=r"^objective must be flow_matching on a dataset with a source, got"):
        density(has_source=True, objective="likelihood")


def test_what_a_likelihood_may_be_off_by_is_told_apart():
    """Of a model that is exact, with probes of a known error: by the samples and the probes alone."""
    points = {"inputs": torch.randn(100, 2, generator=torch.Generator().manual_seed(99))}
    task, model = density(), Normal()
    rows = task.predict(model, points, generator())
    found = task.details(model, points, rows)
    assert found["errors"]["samples"] == pytest.approx(rows["log_prob"].std().item() / 10)
    assert found["errors"]["probes"] == pytest.approx((2 / 4) ** 0.5 / 10, rel=0.3)
    assert found["errors"]["solver"] == pytest.approx(0, abs=1e-5)
    assert set(found["errors"]) == {"samples", "probes", "solver"}
    assert (found["nfe"], found["round_trip"]) == ({"likelihood": 3, "samples": 3}, 0)
    fit = task.fit_details(model, dict.fromkeys(("train", "val", "test"), points))
    assert fit["baselines"]["gaussian"] == pytest.approx(-rows["log_prob"].mean().item(), rel=0.1)
    assert 0 < fit["wasserstein"]["floor"] < fit["wasserstein"]["samples"] < 1
    shown = task.shown(found | fit)
    assert re.fullmatch(r"0\.\d+ samples, 0\.\d+ probes, \S+ solver \(nats\)", shown["off by"])
    assert re.fullmatch(r"0\.\d+ \(floor 0\.\d+\)", shown["2-Wasserstein"])


def test_the_noise_of_whole_numbers_has_an_error_of_its_own():
    images = {"inputs": torch.rand(80, 1, 2, 2, generator=torch.Generator().manual_seed(99))}
    task, model = density((1, 2, 2), num_levels=5, trace="exact"), Normal()
    found = task.details(model, images, task.predict(model, images, generator()))
    assert set(found["errors"]) == {"samples", "solver", "dequantization"}
    again = [task.predict(model, images, torch.Generator().manual_seed(k))["log_prob"].mean() for k in range(20)]
    assert found["errors"]["dequantization"] == pytest.approx(torch.stack(again).std().item(), rel=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "score"}, "objective must be one of flow_matching, likelihood, got score"),
        ({"coupling": "sinkhorn"}, "coupling must be one of independent, ot, conditional_ot, got sinkhorn"),
        ({"trace": "skilling"}, "trace must be one of hutchinson, exact, got skilling"),
        ({"noise": "uniform"}, "noise must be one of rademacher, gaussian, got uniform"),
        ({"sigma": -1.0}, "sigma must be at least 0, got -1.0"),
        ({"num_probes": 0}, "num_probes must be at least 1, got 0"),
        ({"eval_probes": 1}, "eval_probes must be at least 2, got 1"),
        ({"steer": 1.0}, "steer must be 0 or more and below 1, got 1.0"),
        ({"kinetic": -0.1}, "kinetic must be at least 0, got -0.1"),
        ({"logit": 0.5}, "logit must be above 0 and below 0.5, or null, got 0.5"),
        ({"condition": "class"}, "condition must be label or null, got class"),
        ({"condition": "label"}, "condition=label needs a dataset with labels, which this one has not: set it to null"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        density(**settings)


def test_figures_show_the_density_and_its_samples_in_the_units_of_the_data():
    """A map of which the title has the integral, samples, paths; of a source without the map; of images a grid."""
    points = {"inputs": torch.randn(50, 2, generator=generator()), "targets": torch.arange(50) % 2}
    scaled = density(scaling=Scaling((1.0, 3.0), (2.0, 5.0)))
    (figure,) = scaled.figures(Normal(), points, {}).values()
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[1:] == ["samples and data", "paths"]
    assert float(titles[0].removeprefix("density, integral ")) == pytest.approx(1, abs=0.1)
    both = density(condition="label", class_names=("a", "b"), class_counts=(1, 1))
    (figure,) = both.figures(Normal(), points, {}).values()
    assert figure.axes[0].get_title() == "density, integral " + titles[0].split()[-1]  # of both classes together
    source = density(has_source=True)
    (figure,) = source.figures(Normal(), {**points, "source": points["inputs"] + 1}, {}).values()
    assert [axes.get_title() for axes in figure.axes] == titles[1:]
    images = {"inputs": torch.zeros(9, 1, 2, 2)}
    assert set(density((1, 2, 2), num_levels=5).figures(Normal(), images, {})) == {"samples"}
