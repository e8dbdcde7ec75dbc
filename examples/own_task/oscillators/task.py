"""A task of one's own: predict a series from its start, and be measured by what was observed of it."""

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from node_cli import Batch, Loss, Task
from node_cli.tasks.task import solved

NUM_SHOWN = 3


class Forecast(Task):
    """The square error of the observed values. `horizon` lets the loss look further ahead as the run goes on.

    Args:
        times: of all series, as the dataset offers them.
        horizon: the fraction of the times that counts when the run begins; all count from its middle on.
    """

    metric_names = ("loss", "rmse")
    objective = ("rmse", "min")
    inputs = ("start",)  # all that `predict` reads of a batch

    def __init__(self, *, times: tuple[float, ...], horizon: float) -> None:
        if not 0 < horizon <= 1:
            raise ValueError(f"horizon must be above 0 and at most 1, got {horizon}")
        self.times = times
        self.horizon = horizon

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> Loss:
        """A sum over the values that were observed, and their number: batches of any padding add up."""
        reached = min(1.0, self.horizon + 2 * progress * (1 - self.horizon))
        count = max(1, round(reached * len(self.times)))
        errors, weight = _errors(model(batch["start"])[:, :count], batch["values"][:, :count], batch["mask"][:, :count])
        return Loss(errors.square().sum(), weight, {"mae": errors.detach().abs().sum()})

    def predict(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """The series, one a row."""
        return {"series": model(batch["start"])}

    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """The mean square error over all observed values of a split, and its root."""
        batch, rows = solved(batch, rows)
        errors, weight = _errors(rows["series"], batch["values"], batch["mask"])
        loss = (errors.square().sum() / weight).item()
        return {"loss": loss, "rmse": loss**0.5}

    def figures(self, model: nn.Module, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """The first series: what was observed of their position, and what is predicted."""
        figure = Figure(figsize=(5, 3.2), layout="constrained")
        axes = figure.subplots()
        times = torch.tensor(self.times)
        for number in range(min(NUM_SHOWN, len(batch["values"]))):
            values, mask, series = (t[number, :, 0].cpu() for t in (batch["values"], batch["mask"], rows["series"]))
            axes.plot(times, series, color=f"C{number}")
            axes.plot(times[mask], values[mask], "o", color=f"C{number}", markersize=3)
        axes.set(xlabel="t", ylabel="x", title="predicted (lines) and observed (dots)")
        return {"series": figure}


def _errors(predicted: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted less observed, 0 where nothing was observed; and how many were."""
    return torch.where(mask, predicted - values, 0.0), mask.sum()
