import numpy as np
import pytest
import torch

from node_cli.loggers.base import Logger, Loggers
from node_cli.loggers.jsonl import JsonlLogger


class Recorder(Logger):
    """A logger that keeps the calls."""

    def __init__(self):
        self.calls = []

    def log_scalars(self, step, values):
        self.calls.append(("log_scalars", step, values))

    def log_histogram(self, step, tag, values):
        self.calls.append(("log_histogram", step, tag, values))

    def log_image(self, step, tag, image):
        self.calls.append(("log_image", step, tag, image))

    def log_text(self, tag, text):
        self.calls.append(("log_text", tag, text))

    def log_metric_names(self, names):
        self.calls.append(("log_metric_names", names))

    def log_hparams(self, hparams):
        self.calls.append(("log_hparams", hparams))

    def flush(self):
        self.calls.append(("flush",))

    def finish(self):
        self.calls.append(("finish",))

    def close(self):
        self.calls.append(("close",))


CALLS = [
    ("log_scalars", 1, {"train/loss": 0.5}),
    ("log_histogram", 2, "weights", torch.ones(3)),
    ("log_image", 3, "picture", np.zeros((2, 2, 3), dtype=np.uint8)),
    ("log_text", "config", "seed: 0"),
    ("log_metric_names", ["loss", "error"]),
    ("log_hparams", {"seed": 0}),
    ("flush",),
    ("finish",),
    ("close",),
]


def test_images_are_taken_where_one_of_several_takes_them(tmp_path):
    jsonl, recorder = JsonlLogger(tmp_path, None), Recorder()
    assert Loggers([jsonl, recorder]).takes_images
    assert not Loggers([jsonl]).takes_images
    assert not Loggers([]).takes_images
    jsonl.close()


def test_every_record_reaches_every_logger():
    methods = {name for name, value in vars(Logger).items() if callable(value)}
    assert {name for name, *_ in CALLS} == methods
    assert methods <= vars(Loggers).keys()
    first, second = Recorder(), Recorder()
    loggers = Loggers([first, second])
    for name, *arguments in CALLS:
        getattr(loggers, name)(*arguments)
    assert first.calls == CALLS
    assert second.calls == CALLS


def test_no_logger_at_all_is_fine():
    loggers = Loggers([])
    for name, *arguments in CALLS:
        getattr(loggers, name)(*arguments)


class Full(Recorder):
    """A logger whose disk is full."""

    def flush(self):
        raise OSError("no space")

    def close(self):
        raise OSError("no space")


@pytest.mark.parametrize("name", ["flush", "close"])
def test_one_full_disk_does_not_keep_the_others_from_theirs(name):
    first, last = Recorder(), Recorder()
    with pytest.raises(OSError, match="no space"):
        getattr(Loggers([first, Full(), last]), name)()
    assert first.calls == last.calls == [(name,)]
