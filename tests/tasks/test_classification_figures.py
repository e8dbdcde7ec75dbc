import numpy as np
import pytest

from node_cli.figures import image_of
from node_cli.tasks import classification_figures

DIGITS = [str(digit) for digit in range(10)]
RNG = np.random.default_rng(0)


def drawn(name, *args):
    return image_of(getattr(classification_figures, name)(*args))


def assert_picture(image):
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.dtype == np.uint8
    assert image.min() < 100  # something is drawn
    assert image.max() == 255  # on white


def has_colour(image, colour):
    return bool((image == np.array(colour, dtype=np.uint8)).all(axis=-1).any())


def is_darkest(image):
    """Where the cells that hold a whole row are."""
    return (image == (8, 48, 107)).all(axis=-1)


def test_the_confusion_matrix_is_dark_where_the_classes_meet():
    targets = np.repeat(np.arange(10), 5)
    right = drawn("confusion_matrix", targets, targets, DIGITS)
    spread = drawn("confusion_matrix", targets, np.tile(np.arange(5), 10), DIGITS)
    assert_picture(right)
    assert_picture(spread)
    assert is_darkest(right).sum() > 1000
    assert not is_darkest(spread).any()


def test_the_confusion_matrix_has_targets_in_rows():
    # All of class 1 is taken for class 0: the only cells with colour are in the left column.
    image = drawn("confusion_matrix", np.array([0, 1, 1]), np.array([0, 0, 0]), ["a", "b"])
    rows, columns = np.nonzero(is_darkest(image))
    assert columns.max() < image.shape[1] * 0.6
    assert rows.min() < image.shape[0] * 0.3 < image.shape[0] * 0.6 < rows.max()


def test_a_sample_without_a_prediction_has_no_cell():
    targets = np.array([0, 1, 1])
    missing = drawn("confusion_matrix", targets, np.array([0, 1, -1]), ["a", "b"])
    given = drawn("confusion_matrix", targets[:2], np.array([0, 1]), ["a", "b"])
    assert np.array_equal(is_darkest(missing), is_darkest(given))
    assert not np.array_equal(missing, given)  # the title says so
    assert not is_darkest(drawn("confusion_matrix", targets, np.array([-1, -1, -1]), ["a", "b"])).any()


def test_a_series_of_which_one_value_was_seen_is_shown_as_a_dot():
    values = np.full((1, 3, 2), np.nan, dtype=np.float32)
    empty = classification_figures.Panels(np.arange(3.0)[None], values)
    single = empty._replace(values=np.where(np.arange(3)[:, None] == 1, 0.5, values))
    shown = [drawn("sample_inputs", each, np.array([0]), ["a", "b"]) for each in (single, empty)]
    assert not np.array_equal(*shown)


def test_a_sample_without_a_prediction_is_shown_among_the_wrong_ones():
    inputs = np.zeros((1, 3, 8, 8), dtype=np.float32)
    inputs[0, 2, :4] = 1.0
    missing, wrong = (
        drawn("wrong_predictions", inputs, np.array([0]), np.array([prediction]), ["a", "b"]) for prediction in (-1, 1)
    )
    assert has_colour(missing, (0, 0, 255))
    assert not np.array_equal(missing, wrong)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_the_confusion_matrix_takes_classes_that_never_occur(num_classes):
    names = [f"class {index}" for index in range(num_classes)]
    assert_picture(drawn("confusion_matrix", np.array([0, 1]), np.array([1, 1]), names))


@pytest.mark.parametrize(
    "shape", [(40, 1, 8, 8), (3, 3, 32, 32), (5, 2, 8, 8), (50, 2), (50, 5), (50, 1)], ids=lambda shape: str(shape)
)
def test_any_shape_of_inputs_can_be_shown(shape):
    inputs = RNG.normal(size=shape).astype(np.float32)
    targets = RNG.integers(0, 10, shape[0])
    predictions = (targets + RNG.integers(0, 2, shape[0])) % 10
    assert_picture(drawn("sample_inputs", inputs, targets, DIGITS))
    assert_picture(drawn("wrong_predictions", inputs, targets, predictions, DIGITS))


def test_images_are_rescaled_to_the_whole_range():
    low_contrast = np.full((1, 3, 8, 8), -0.001, dtype=np.float32)
    low_contrast[0, 0, :4] = 0.001
    image = drawn("sample_inputs", low_contrast, np.array([0]), ["a"])
    assert has_colour(image, (255, 0, 0))
    assert has_colour(image, (0, 0, 0))


def test_a_constant_image_can_be_shown():
    assert_picture(drawn("sample_inputs", np.ones((1, 1, 8, 8)), np.array([0]), ["a"]))


def test_only_wrong_images_are_shown():
    inputs = np.zeros((2, 3, 8, 8), dtype=np.float32)
    inputs[0, 0, :4] = 1.0  # red, and right
    inputs[1, 2, :4] = 1.0  # blue, and wrong
    image = drawn("wrong_predictions", inputs, np.array([0, 1]), np.array([0, 0]), ["a", "b"])
    assert has_colour(image, (0, 0, 255))
    assert not has_colour(image, (255, 0, 0))


@pytest.mark.parametrize("shape", [(4, 1, 8, 8), (4, 2)])
def test_no_wrong_prediction_is_a_picture_too(shape):
    targets = np.array([0, 1, 0, 1])
    image = drawn("wrong_predictions", RNG.normal(size=shape), targets, targets, ["a", "b"])
    assert_picture(image)


def test_wrong_points_are_crossed():
    points, targets = RNG.normal(size=(20, 2)), np.arange(20) % 2
    none_wrong = drawn("wrong_predictions", points, targets, targets, ["a", "b"])
    all_wrong = drawn("wrong_predictions", points, targets, 1 - targets, ["a", "b"])
    red = [((image == (0xC6, 0x28, 0x28)).all(axis=-1)).sum() for image in (none_wrong, all_wrong)]
    assert red[1] > red[0] + 19 * 20  # pixels of a cross


@pytest.mark.parametrize("names", [["_a", "_b"], ["$\\frac$", "$x"], ["a$b$c", "^^\\"]])
@pytest.mark.parametrize("shape", [(4, 1, 3, 3), (4, 2)])
def test_names_of_classes_are_shown_whatever_they_hold(names, shape):
    inputs, targets = RNG.random(shape), np.array([0, 0, 1, 1])
    for image in (
        drawn("sample_inputs", inputs, targets, names),
        drawn("wrong_predictions", inputs, targets, 1 - targets, names),
        drawn("confusion_matrix", targets, 1 - targets, names),
    ):
        assert_picture(image)
    nameless = drawn("sample_inputs", inputs, targets, [" ", " "])
    shown = drawn("sample_inputs", inputs, targets, names)
    assert shown.shape != nameless.shape or (shown != nameless).any()
