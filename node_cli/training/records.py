"""What a run shows of itself: the line of an epoch, the numbers beside the progress bar, histograms, figures."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import nn

from node_cli.advice import in_keys
from node_cli.datasets.dataset import Dataset
from node_cli.figures import image_of
from node_cli.loggers.base import Logger
from node_cli.ode.solution import SolveError
from node_cli.tasks.task import Task
from node_cli.training.evaluation import Evaluation
from node_cli.training.state import TrainState
from node_cli.training.update import Update

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

MOST_IN_LINE = 8  # metrics of training; the others are in the records
FAILURES_IN_LINE = ("val/failed", "solver/skipped", "solver/fallbacks", "train/skipped")


def shown_in_bar(update: Update) -> dict[str, float]:
    """The numbers beside the progress bar, the most wanted first."""
    nfe = {"nfe": update.costs["nfe/forward"]} if "nfe/forward" in update.costs else {}
    return {tag.removeprefix("train/"): value for tag, value in update.means.items()} | nfe


def epoch_line(values: Mapping[str, float], objective: str, epochs: int, is_best: bool) -> str:
    """One line about a finished epoch of `epochs`.

    It shows what was measured in training, and the same of the validation: its objective, where that is only the loss.
    """
    train = [tag for tag in values if tag.startswith("train/") and tag not in FAILURES_IN_LINE][:MOST_IN_LINE]
    val = [tag for tag in (f"val/{tag.removeprefix('train/')}" for tag in train) if tag in values]
    if len(val) < 2:
        val = list(dict.fromkeys([*val, f"val/{objective}"]))
    parts = [f"epoch {values['epoch']:.0f}/{epochs}"]
    parts += [f"{tag} {values[tag]:.4f}" for tag in (*train, *val)]
    parts += [f"lr {values['lr']:.3g}"] if "lr" in values else []
    parts += [f"{tag} {values[tag]:.1f}" for tag in ("nfe/forward", "nfe/backward") if values.get(tag)]
    parts += [f"{tag} {values[tag]:.0f}" for tag in FAILURES_IN_LINE if values.get(tag)]
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


def log_results(
    logger: Logger, task: Task, model: nn.Module, dataset: Dataset, evaluation: Evaluation, step: int
) -> None:
    """What the task draws of an evaluation of a split of `dataset`; the run goes on as if nothing had been drawn."""
    device = next(model.parameters()).device
    batch, names = dataset.splits[evaluation.split], dataset.sample_names.get(evaluation.split, ())
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            figures = task.figures(model, batch, evaluation.rows, names)
        if logger.takes_images:  # of several processes, the first one's does
            log_figures(logger, figures, evaluation.split, step)
    except SolveError as error:
        log.warning("no figures of the %s split at step %d: %s", evaluation.split, step, in_keys(error))


def log_figures(logger: Logger, figures: Mapping[str, Figure], split: str, step: int) -> None:
    """Those of a split."""
    for name, figure in figures.items():
        logger.log_image(step, f"{split}/{name}", image_of(figure))
