import math
import os

import matplotlib.image
import pytest

from node_cli.runs.curves import write_curves


def entry(epoch, **extra):
    tags = {"train/loss": 1 / epoch, "val/loss": 2 / epoch, "train/accuracy": 0.8, "val/accuracy": 0.7}
    return {"epoch": epoch, **tags, "nfe/forward": 20 + epoch, "nfe/backward": 26.5, "lr": 0.1, **extra}


def without(prefix):
    return [{tag: value for tag, value in entry(epoch).items() if not tag.startswith(prefix)} for epoch in (1, 2)]


def width(history, tmp_path):
    write_curves(history, tmp_path / "curves.png", "a run")
    return matplotlib.image.imread(tmp_path / "curves.png").shape[1]


def test_three_panels_are_drawn_and_nothing_else_is_left(tmp_path):
    history = [entry(epoch) for epoch in range(1, 6)]
    assert width(history, tmp_path) == 3 * width([{"epoch": 1, "train/loss": 0.5}], tmp_path)
    assert os.listdir(tmp_path) == ["curves.png"]


@pytest.mark.parametrize("prefix", ["nfe/", "train/acc"])
def test_a_panel_without_data_is_left_out(prefix, tmp_path):
    assert width(without(prefix), tmp_path) == width([entry(1)], tmp_path) * 2 // 3


def test_every_shared_metric_has_a_panel(tmp_path):
    history = [entry(1, **{"train/top5": 0.9, "val/top5": 0.9, "val/class_3": 0.5})]
    assert width(history, tmp_path) * 3 == width([entry(1)], tmp_path) * 4


def test_tags_may_be_absent_in_some_epochs_and_values_not_finite(tmp_path):
    history = [{"epoch": 1, "train/loss": math.nan}, entry(2), {"epoch": 3, "train/loss": math.inf}]
    assert width(history, tmp_path) == width([entry(1)], tmp_path)


def test_a_folder_may_have_any_name(tmp_path):
    write_curves([entry(1)], tmp_path / "curves.png", "outputs/$\\frac$/_x")
    assert os.listdir(tmp_path) == ["curves.png"]


def test_a_killed_writer_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"the old one")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_curves([entry(1)], path, "a run")
    assert path.read_bytes() == b"the old one"


def test_an_empty_history_is_our_mistake(tmp_path):
    with pytest.raises(AssertionError, match="nothing to draw"):
        write_curves([], tmp_path / "curves.png", "a run")


def test_a_metric_of_training_alone_has_a_panel(tmp_path):
    assert width(without("val/acc"), tmp_path) == width([entry(1)], tmp_path)
