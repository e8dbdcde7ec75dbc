import pytest
import torch
from parts import make_gradient, make_solver
from touchy import Touchy

from node_cli.figures import image_of
from node_cli.models.mlp import Mlp
from node_cli.models.odenet_mlp import OdeNetMlp
from node_cli.tasks.plane_figures import plane

KEYS = {"width": 4, "num_hidden_layers": 1, "activation": "tanh", "t0": 0.0, "t1": 1.0, "learn_times": False}
POINTS = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
TARGETS = (POINTS[:, 0] > 0).long()


def net(solver=None, num_blocks=1, augment_dim=0):
    torch.manual_seed(0)
    solver = solver or make_solver("rk4", num_steps=2)
    runtime = {"input_shape": (2,), "num_outputs": 2, "solver": solver, "gradient": make_gradient("direct")}
    return OdeNetMlp(**runtime, **KEYS, num_blocks=num_blocks, augment_dim=augment_dim)


def drawn(model):
    with torch.no_grad():
        return plane(model.eval(), POINTS, TARGETS, ("a", "b"))


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    ("model", "titles"),
    [
        (Mlp(input_shape=(2,), num_outputs=2, width=3), ["decision boundary"]),
        (net(), ["decision boundary", "trajectories"]),
        (net(num_blocks=2), ["decision boundary", "trajectories in block 0", "trajectories in block 1"]),
    ],
)
def test_a_panel_for_the_plane_and_one_for_each_block(model, titles):
    figure = drawn(model)
    assert [axes.get_title() for axes in figure.axes] == titles
    assert image_of(figure).shape[2] == 3


def test_the_plane_has_the_colour_of_the_class_that_the_model_gives():
    model = Mlp(input_shape=(2,), num_outputs=2, width=3)
    model.forward = lambda points: 100 * torch.stack([-points[:, 0], points[:, 0]], dim=1)
    [image] = drawn(model).axes[0].images
    left, right = image.get_array()[30, 2], image.get_array()[30, -3]
    assert left[2] > left[0]  # blue
    assert right[0] > right[2]  # orange


def test_trajectories_lead_from_the_points_to_where_the_block_takes_them():
    model = net(augment_dim=1)
    axes = drawn(model).axes[1]
    assert axes.get_xlabel() == "coordinates 1 and 2 of 3"
    with torch.no_grad():
        ends = model.blocks(model.augment(POINTS))
    for line, start, end in zip(axes.lines, POINTS, ends, strict=True):
        assert line.get_xydata()[0] == pytest.approx(start.tolist())
        assert line.get_xydata()[-1] == pytest.approx(end[:2].tolist(), abs=0.05)  # at other times


def test_a_solve_that_fails_leaves_the_other_panels():
    boundary, trajectories = drawn(net(Touchy(limit=0.01))).axes
    assert texts(boundary) == texts(trajectories) == ["the solve failed"]
