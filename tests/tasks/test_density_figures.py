"""Figures of densities: their panels, and integrals that are 1."""

import math

import pytest
import torch
from parts import make_gradient, make_solver

from node_cli.figures import image_of
from node_cli.models.cnf import Cnf
from node_cli.ode.solution import SolveError, Status
from node_cli.tasks import density_figures as density_figures_module
from node_cli.tasks.density_figures import density_figures, integral

RANDOM = torch.Generator().manual_seed(0)
POINTS = torch.randn(50, 4, generator=RANDOM)


def log_prob(points):
    return -0.5 * points.square().sum(1) - points.shape[1] / 2 * math.log(2 * math.pi)


def test_the_integral_of_a_density_is_one_and_of_half_of_it_a_half():
    assert integral(log_prob, POINTS[:, :2]) == pytest.approx(1.0, abs=1e-3)
    assert integral(lambda points: log_prob(points) - math.log(2), POINTS[:, :2]) == pytest.approx(0.5, abs=1e-3)
    narrow = POINTS[:, :2] * 0.01 + 7
    assert integral(lambda points: log_prob((points - 7) / 0.01) - 2 * math.log(0.01), narrow) == pytest.approx(
        1.0, abs=1e-3
    )


def test_the_density_of_a_flow_integrates_to_one(monkeypatch):
    monkeypatch.setattr(density_figures_module, "FINE_SIDE", 60)
    solver = make_solver("dopri5", rtol=1e-5, atol=1e-5)
    settings = {"num_conditions": 0, "network": "mlp", "width": 16, "num_layers": 1, "num_blocks": 1}
    model = Cnf(input_shape=(2,), solver=solver, gradient=make_gradient("direct"), **settings)
    with torch.no_grad():
        for parameter in model.parameters():  # a field that bends
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=RANDOM))
        samples = model.carried(torch.randn(500, 2, generator=RANDOM))[-1]
        assert samples.T.corrcoef()[0, 1].abs() > 0.1 or samples.std(0).max() > 1.2
        assert integral(lambda points: model.log_density(points, None).estimates[:, 0], samples) == pytest.approx(
            1.0, abs=0.01
        )


def test_of_the_plane_there_are_a_map_samples_and_paths():
    # 0.994: what lies beyond the map is not counted
    paths = torch.lerp(torch.zeros(5, 50, 2), POINTS[:, :2].expand(5, 50, 2), torch.linspace(0, 1, 5)[:, None, None])
    figure = density_figures(log_prob, POINTS[:, 2:], POINTS[:, :2], paths, names=("a", "b"))["density"]
    assert [axes.get_title() for axes in figure.axes] == ["density, integral 0.994", "samples and data", "paths"]
    assert {axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes} == {"ab"}
    assert len(figure.axes[2].lines) == 50
    assert image_of(figure).std() > 0


def test_the_map_is_of_the_density():
    figure = density_figures(log_prob, POINTS[:, :2], POINTS[:, :2])["density"]
    assert len(figure.axes) == 2
    shown = figure.axes[0].images[0].get_array()
    row, column = divmod(int(shown.argmax()), shown.shape[1])
    left, right, bottom, top = figure.axes[0].images[0].get_extent()
    place = left + (right - left) * column / 79, bottom + (top - bottom) * row / 79
    assert place == pytest.approx((0.0, 0.0), abs=0.1)
    assert float(shown.max()) == pytest.approx(1 / (2 * math.pi), rel=0.01)


def test_a_map_whose_solve_fails_leaves_the_other_panels():
    def fails(points):
        raise SolveError(Status.NON_FINITE, 0.0, 1)

    figure = density_figures(fails, POINTS[:, :2], POINTS[:, :2])["density"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["the solve failed"]
    assert len(figure.axes[1].collections) == 2


def test_of_numbers_there_is_a_curve_over_histograms():
    (axes,) = density_figures(log_prob, POINTS[:, :1], POINTS[:, 1:2], names=("height",))["density"].axes
    assert (axes.get_xlabel(), len(axes.lines)) == ("height", 1)
    assert axes.lines[0].get_ydata().max() == pytest.approx((2 * math.pi) ** -0.5, rel=0.01)


@pytest.mark.parametrize(("dim", "num_panels"), [(3, 3), (4, 6), (9, 6)])
def test_of_more_dimensions_the_first_are_shown_in_pairs(dim, num_panels):
    points = torch.randn(20, dim, generator=RANDOM)
    figure = density_figures(log_prob, points, points)["samples"]
    panels = [axes for axes in figure.axes if axes.axison]
    assert len(panels) == num_panels
    assert panels[0].get_xlabel() == "coordinate 1"


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 4)])
def test_images_are_shown_in_a_grid_even_as_bytes(shape):
    images = torch.randint(0, 17, (40, *shape), generator=RANDOM, dtype=torch.uint8)
    figure = density_figures(log_prob, images, images, image_shape=shape)["samples"]
    assert len(figure.axes[0].images) == 32
    few = density_figures(log_prob, images[:3], images, image_shape=shape)["samples"]
    assert len(few.axes[0].images) == 3


def test_samples_that_are_all_one_point_are_drawn():
    same = torch.ones(20, 2)
    assert image_of(density_figures(log_prob, same, same)["density"]).size
