import numpy as np
import torch

from node_cli.loggers.base import Logger, Loggers


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
    ("log_hparams", {"seed": 0}),
    ("flush",),
    ("finish",),
    ("close",),
]


def test_every_record_reaches_every_logger():
    assert {name for name, *_ in CALLS} == Logger.__abstractmethods__
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
