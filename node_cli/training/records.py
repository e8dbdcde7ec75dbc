"""What a run shows of itself: the line of an epoch, the numbers beside the progress bar, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from torch import nn

from node_cli.loggers.base import Logger
from node_cli.training.state import TrainState

SHOWN_IN_BAR = {"loss": "train/loss", "accuracy": "train/accuracy", "nfe": "nfe/forward"}
SHOWN_IN_LINE = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
FAILURES_IN_LINE = ("val/failed", "solver/skipped", "solver/fallbacks", "train/skipped")


def epoch_line(figures: Mapping[str, float], epochs: int, is_best: bool) -> str:
    """One line about a finished epoch of `epochs`."""
    parts = [f"epoch {figures['epoch']:.0f}/{epochs}"]
    parts += [f"{tag} {figures[tag]:.4f}" for tag in SHOWN_IN_LINE if tag in figures]
    parts += [f"lr {figures['lr']:.3g}"] if "lr" in figures else []
    parts += [f"{tag} {figures[tag]:.1f}" for tag in ("nfe/forward", "nfe/backward") if figures.get(tag)]
    parts += [f"{tag} {figures[tag]:.0f}" for tag in FAILURES_IN_LINE if figures.get(tag)]
    return "  ".join(parts) + ("  best so far" if is_best else "")


def last_losses(history: Sequence[Mapping[str, float]]) -> str:
    """The losses of the last finished epoch, in words."""
    losses = [f"{tag} {history[-1][tag]:.4f}" for tag in ("train/loss", "val/loss") if history and tag in history[-1]]
    return f"the last epoch had {', '.join(losses)}" if losses else "no epoch is done"


def log_histograms(logger: Logger, model: nn.Module, state: TrainState) -> None:
    """Weights, and the step sizes of the epoch, of each ODE block too where there are several."""
    for name, parameter in model.named_parameters():
        logger.log_histogram(state.step, f"weights/{name}", parameter.detach())
    sizes = state.step_sizes
    tagged = {f"solver/step_size/{name}": steps for name, steps in sizes.items()} if len(sizes) > 1 else {}
    for tag, steps in {"solver/step_size": list(chain(*sizes.values())), **tagged}.items():
        if steps:
            logger.log_histogram(state.step, tag, torch.tensor(steps))


def log_pictures(logger: Logger, pictures: Mapping[str, np.ndarray], split: str, step: int) -> None:
    """Those of the results on a split."""
    for name, picture in pictures.items():
        logger.log_image(step, f"{split}/{name}", picture)
