"""Panels in a grid, and figures as arrays and files."""

import pytest

from node_cli.figures import file_of, image_of, label_panel, panels

STARTS = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


def test_panels_fill_a_grid_and_what_is_left_of_it_stays_empty():
    figure, axes = panels(3, columns=2, size=(2.0, 1.0), title="$x")
    assert figure.get_size_inches().tolist() == [4.0, 2.0]
    assert len(axes) == 3
    assert [each.axison for each in figure.axes] == [True, True, True, False]


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
