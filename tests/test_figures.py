"""Panels in a grid, and figures as arrays and files."""

from io import BytesIO

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from node_cli.figures import file_of, image_of, label_panel, panels

STARTS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def test_panels_fill_a_grid_and_what_is_left_of_it_stays_empty():
    figure, axes = panels(3, columns=2, size=(2.0, 1.0), title="$x")
    assert figure.get_size_inches().tolist() == [4.0, 2.0]
    assert len(axes) == 3
    assert figure.axes == axes


def test_an_image_is_rgb_and_names_with_a_dollar_sign_are_drawn_as_they_stand():
    figure, (axes,) = panels(1, size=(2.0, 1.0), title="cost in $x_1")
    axes.plot([0, 1], [0, 1], label="a curve")
    label_panel(axes, "$", "$x", "$y")
    assert axes.get_legend() is not None
    image = image_of(figure)
    assert (image.shape, image.dtype.name) == ((110, 220, 3), "uint8")


@pytest.mark.parametrize("ending", STARTS)
def test_the_same_figure_gives_the_same_file(ending):
    first, second = (file_of(panels(2)[0], ending) for _ in range(2))
    assert first == second
    assert first.startswith(STARTS[ending])


def test_a_figure_is_drawn_once_for_its_image_and_its_file_which_is_that_of_savefig(monkeypatch):
    figure, (axes,) = panels(1)
    axes.plot([0, 1], [0, 1])
    drawn, draw = [], FigureCanvasAgg.draw
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda canvas: (drawn.append(canvas), draw(canvas)))
    image, content = image_of(figure), file_of(figure)
    assert len(drawn) == 1
    axes.plot([0, 1], [1, 0])
    changed = image_of(figure)
    assert (changed.shape, (changed != image).any(), len(drawn)) == (image.shape, True, 2)
    own = BytesIO()
    figure.savefig(own, format="png")
    assert own.getvalue() == file_of(figure) != content
