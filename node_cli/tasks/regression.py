"""Regression: numbers of each sample, with errors in the units of the user."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.series import TARGETS, Units
from node_cli.tasks.density_space import Scaling
from node_cli.tasks.kinetic import Kinetic
from node_cli.tasks.labels import inputs_of, model_type_of, outputs, unused_with
from node_cli.tasks.regression_figures import predictions_against_targets
from node_cli.tasks.task import Loss, Task, solved

if TYPE_CHECKING:
    from matplotlib.figure import Figure


OBSERVED = "observed"  # the row of what is predicted, where it is known


class Regression(Task):
    """A model that maps the `inputs` of a batch, or all of its series, to scaled numbers; `targets` `(n, k)` are those.

    The loss is half the mean squared error of scaled targets. RMSE and MAE are in the units of the user, and means over
    the targets where there are several; R2 is the fraction of the variance of the split that is explained, likewise.

    Args:
        target_names: a name for each target.
        target_scaling: how targets were scaled.
        units: those of series; None: the samples are no series.
        kinetic: weight of the squared slope of ODE blocks in the loss, see `Kinetic`.
    """

    metric_names = ("loss", "rmse", "mae", "r2")
    objective = ("loss", "min")
    differences = ("r2",)
    hidden_rows = (TARGETS,)  # they are among the rows, in the units of the user

    def __init__(
        self,
        target_names: tuple[str, ...],
        target_scaling: Scaling,
        units: Units | None = None,
        *,
        kinetic: float,
    ) -> None:
        self.target_names = target_names
        self.inputs, self.model_type = inputs_of(units), model_type_of(units)
        self._unused = unused_with(units)
        self.kinetic = Kinetic(kinetic)
        self.offers = {"num_outputs": len(target_names)}
        self.row_names = dict.fromkeys(("prediction", OBSERVED), target_names)
        self._mean, self._std = (
            torch.tensor(each, dtype=torch.float64) for each in (target_scaling.mean, target_scaling.std)
        )

    def check(self, model: nn.Module, splits: Mapping[str, Batch]) -> None:
        """See `Task.check`."""
        self.kinetic.check(model)

    def unused(self, model: nn.Module) -> Mapping[str, str]:
        """See `Task.unused`."""
        return {**self.kinetic.unused(model), **self._unused}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> Loss:
        """The sum over samples, of the mean over targets."""
        with self.kinetic.of_solves(model) as energies:
            found = outputs(model, batch)
        total = 0.5 * (found - batch[TARGETS]).square().mean(1).sum()
        return self.kinetic.beside(Loss(total, total.new_tensor(len(found)), {}), energies)

    def predict(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Each number in the units of the user, beside what it is where that is known."""
        rows = {"prediction": self._unscaled(outputs(model, batch))}
        return rows | ({OBSERVED: self._unscaled(batch[TARGETS])} if TARGETS in batch else {})

    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """See the class; of the samples that have a prediction."""
        _, rows = solved(batch, rows)
        errors, targets = rows["prediction"] - rows[OBSERVED], rows[OBSERVED]
        loss = 0.5 * (errors / self._std.to(errors)).square().mean().item()
        return {"loss": loss, **{name: sum(each) / len(each) for name, each in _errors(errors, targets).items()}}

    def details(self, model: nn.Module, batch: Batch, rows: Batch) -> dict[str, Any]:
        """The errors of each target, and those of a model that always says the mean of the training data."""
        _, rows = solved(batch, rows)
        predictions, targets = rows["prediction"], rows[OBSERVED]
        own = _errors(predictions - targets, targets)
        of_mean = _errors(self._mean.to(targets) - targets, targets)
        return {
            kind: {name: {key: each[i] for key, each in errors.items()} for i, name in enumerate(self.target_names)}
            for kind, errors in (("per_target", own), ("mean_baseline", of_mean))
        }

    def shown(self, details: Mapping[str, Any]) -> Mapping[str, str]:
        """The RMSE of each target beside that of the mean."""
        own, mean = details["per_target"], details["mean_baseline"]
        return {
            f"RMSE of {name}": f"{own[name]['rmse']:.4g}, of the training mean {mean[name]['rmse']:.4g}" for name in own
        }

    def figures(self, model: nn.Module, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """Predictions against targets."""
        _, rows = solved(batch, rows)
        found, true = (rows[name].numpy(force=True) for name in ("prediction", OBSERVED))
        return {"predictions": predictions_against_targets(found, true, self.target_names)}

    def _unscaled(self, scaled: Tensor) -> Tensor:
        return scaled * self._std.to(scaled) + self._mean.to(scaled)


def _errors(errors: Tensor, targets: Tensor) -> dict[str, list[float]]:
    """By name, a number for each target; R2 is NaN of a split in which a target has one value."""
    errors, targets = errors.double(), targets.double()
    squares, spread = errors.square().mean(0), targets.var(0, correction=0)
    r2 = torch.where(spread > 0, 1 - squares / spread, math.nan)
    return {"rmse": squares.sqrt().tolist(), "mae": errors.abs().mean(0).tolist(), "r2": r2.tolist()}
