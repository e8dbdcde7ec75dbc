"""Small problems, trainers for them, and a logger that remembers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from parts import make_part

from node_cli.datasets.augmentation import CropAndFlip
from node_cli.datasets.dataset import Dataset
from node_cli.loggers.base import Loggers
from node_cli.tasks.classification import Classification
from node_cli.training.processes import ALONE
from node_cli.training.schedules import Constant
from node_cli.training.starting import freeze
from node_cli.training.trainer import Trainer

SETTINGS = {
    "seed": 0,
    "precision": "float32",
    "processes": ALONE,
    "on_resume": "continue",
    "epochs": 2,
    "updates_per_epoch": None,
    "max_steps": None,
    "max_seconds": None,
    "batch_size": 8,
    "eval_batch_size": 8,
    "clip_norm": None,
    "on_bad_step": "raise",
    "spike_factor": None,
    "max_skipped": 10,
    "average_decay": None,
    "patience": None,
    "log_every_steps": 1,
    "histograms_every_epochs": 0,
    "figures_every_epochs": 0,
    "save_every_steps": None,
    "keep": 2,
    "devices": 1,
    "max_restarts": 0,
    "freeze": [],
    "audit": lambda epoch, progress: {},
}
OFFERS = {"class_names": ("a", "b")}
SGD = partial(torch.optim.SGD, lr=0.1)


class Recorder(Loggers):
    """Keeps every scalar as `(step, tag, value)` and every other record by its tag."""

    def __init__(self, *, takes_images: bool = False) -> None:
        super().__init__([])
        self.takes_images = takes_images
        self.scalars: list[tuple[int, str, float]] = []
        self.tags: list[str] = []
        self.images: list[tuple[int, str]] = []

    def log_scalars(self, step, values):
        self.scalars += [(step, tag, value) for tag, value in values.items()]

    def log_histogram(self, step, tag, values):
        self.tags.append(tag)

    def log_image(self, step, tag, image):
        self.tags.append(tag)
        self.images.append((step, tag))

    def of(self, tag: str) -> list[float]:
        return [value for _, found, value in self.scalars if found == tag]


def point_dataset(num_train: int = 20) -> Dataset:
    """Points in the plane of two classes apart: `num_train` to train with, eight to validate and eight to test."""
    generator = torch.Generator().manual_seed(0)

    def split(count):
        targets = torch.arange(count) % 2
        inputs = torch.randn(count, 2, generator=generator) * 0.3 + 2 * targets[:, None] - 1
        return {"inputs": inputs, "targets": targets}

    return Dataset({"train": split(num_train), "val": split(8), "test": split(8)}, OFFERS)


def image_dataset() -> Dataset:
    """Random images of two classes, shifted and mirrored when trained with."""
    generator = torch.Generator().manual_seed(0)

    def split(count):
        return {"inputs": torch.rand(count, 1, 6, 6, generator=generator), "targets": torch.arange(count) % 2}

    return Dataset({"train": split(20), "val": split(8), "test": split(8)}, OFFERS, CropAndFlip(1, True, (0.0,)))


def build_ode_net(kind: str, solver: Any, gradient: Any, **changes: Any) -> torch.nn.Module:
    """A small `odenet` for the images or `odenet_mlp` for the points, the same weights each time."""
    torch.manual_seed(0)
    shape = (1, 6, 6) if kind == "odenet" else (2,)
    runtime = {"input_shape": shape, "num_outputs": 2, "solver": solver, "gradient": gradient}
    return make_part("model", kind, width=4, **runtime, **changes)


def build_trainer(model=None, dataset=None, task=None, optimizer=SGD, schedule=None, **settings: Any) -> Trainer:
    """A trainer of a linear model on the points, where nothing else is said."""
    if model is None:
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 2)
    return Trainer(
        model=model,
        task=Classification(("a", "b"), label_smoothing=0.0) if task is None else task,
        dataset=point_dataset() if dataset is None else dataset,
        optimizer=optimizer(freeze(model, settings.get("freeze", []))),
        schedule=Constant() if schedule is None else schedule,
        **SETTINGS | settings,
    )
