"""Latent models of series: what was observed, within and beyond what is seen, as a distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from node_cli.batch import Batch
from node_cli.latent import LatentModel
from node_cli.ode.checks import require, require_at_least
from node_cli.series import MASK, TARGET, TIMES, VALUES, SeriesModel, Units
from node_cli.tasks.forecast_metrics import are_scaled
from node_cli.tasks.forecasts import Axis, extended, forecast_table
from node_cli.tasks.latent_figures import latent_figures
from node_cli.tasks.latent_likelihood import Explained, explained, explained_places, log_mean_exp
from node_cli.tasks.latent_metrics import BAND, LatentErrors, log_jacobian
from node_cli.tasks.task import Loss, Task, solved

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISE_AT_FIRST = 0.5  # std, in units of that of a channel
NOISE = "log_noise"  # what is learned beside the weights of a model: the logarithm of that std, (C,), scaled
SUMS = ("elbo", "iwae", "log_prob")  # rows of samples, in nats


class Latent(Task):
    """A `LatentModel`, fitted by its evidence lower bound; or a `SeriesModel`, by its likelihood.

    Observations are normal around what the model says, with a noise that is learned for each channel.

    Args:
        units: the way back to the user's units.
        channel_names: a name for each channel.
        time_name, time_unit, calendar, channel_units: see `Axis`.
        class_names: of the `targets` of a batch, which colour a figure and are never learned from.
        has_truth: batches have the values without their noise.
        seen_times: how many times of a series a model sees in training, where it is trained on further ones; 0: all.
        num_samples: of the posterior of each series, in training.
        eval_samples: likewise in evaluations and predictions, which bands are made of.
        kl_weight: of the divergence from the prior; 1: the loss is the bound.
        kl_from, kl_until: the weight grows from the fraction `kl_from` of it to all of it at this progress of the run.
        rates: also learns how often each channel is observed: a Poisson process, whose rate the model says.

    Raises:
        ValueError: a setting is out of range.
    """

    model_type = LatentModel | SeriesModel
    objective = ("nll", "min")
    differences = ("coverage",)
    hidden_rows = ("scaled", "probability", "counted", *SUMS)

    def __init__(
        self,
        units: Units,
        channel_names: tuple[str, ...],
        time_name: str = "time",
        time_unit: str = "",
        calendar: str = "",
        channel_units: tuple[str, ...] = (),
        class_names: tuple[str, ...] = (),
        has_truth: bool = False,
        seen_times: int = 0,
        *,
        num_samples: int,
        eval_samples: int,
        kl_weight: float,
        kl_from: float,
        kl_until: float,
        rates: bool,
    ) -> None:
        require_at_least("num_samples", num_samples, 1)
        require_at_least("eval_samples", eval_samples, 2)
        require_at_least("kl_weight", kl_weight, 0)
        for name, number in (("kl_from", kl_from), ("kl_until", kl_until)):
            require(0 <= number <= 1, f"{name} must be from 0 to 1", number)
        self.units, self.channel_names, self.class_names = units, channel_names, class_names
        self.axis = Axis(units, channel_names, time_name, time_unit, calendar, channel_units)
        self.errors = LatentErrors(units, channel_names, are_scaled(channel_names, channel_units), has_truth)
        self.seen_times = seen_times
        self.num_samples, self.band_samples = num_samples, eval_samples
        self.kl_weight, self.kl_from, self.kl_until, self.rates = kl_weight, kl_from, kl_until, rates
        self.offers = {"num_segments": 1, "learns_rates": rates}
        self.row_names = dict.fromkeys(("prediction", "low", "high"), channel_names)
        self.metric_names = ("loss", "iwae", "nll", *self.errors.names)

    def equip(self, model: nn.Module) -> None:
        """Adds the noise, which is learned."""
        noise = torch.full((len(self.channel_names),), math.log(NOISE_AT_FIRST))
        model.register_parameter(NOISE, nn.Parameter(noise))

    def unused(self, model: nn.Module) -> Mapping[str, str]:
        """See `Task.unused`."""
        assert isinstance(model, (LatentModel, SeriesModel))
        keys = [f"task.{key}" for key in ("num_samples", "eval_samples", "kl_weight", "kl_from", "kl_until", "rates")]
        why = f"on a {type(model).__name__}, which has no latent state: take model=latent_ode"
        own = dict.fromkeys(keys, why) if isinstance(model, SeriesModel) else {}
        if self.kl_until == 0:
            own["task.kl_from"] = "with task.kl_until=0: set that above 0"
        return own | {f"model.{key}": reason for key, reason in model.unused.items()}

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> Loss:
        """The negative bound, summed over all observed values, with the weight that the divergence has by now.

        In training the samples are torch's own; else they are always the same.
        """
        assert isinstance(model, (LatentModel, SeriesModel))
        if isinstance(model, SeriesModel) and model.training:
            model.prune(progress)
        generator = None if model.training else torch.Generator().manual_seed(0)
        found, where = self._explained(model, batch, self.num_samples, generator), explained_places(model, batch)
        weight = where.sum().to(found.means.dtype)
        nll, kl = -found.log_likelihood(batch, where).mean(0).sum(), found.kl.sum()
        penalty = model.penalty() if isinstance(model, SeriesModel) else None
        total = nll + self._weight_of_kl(progress) * kl + (0.0 if penalty is None else penalty * weight)
        shown = {"nll": nll, "kl": kl} if isinstance(model, LatentModel) else {}
        return Loss(total, weight, {name: value.detach() for name, value in shown.items()})

    def predict(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Times, the mean of the prediction and its band of 90 %, in the user's units.

        Hidden: the mean as the model has it, the cumulative probability of what was observed, and log-likelihoods.
        """
        assert isinstance(model, (LatentModel, SeriesModel))
        assert self.band_samples is not None
        found, where = self._explained(model, batch, self.band_samples, generator), explained_places(model, batch)
        scaled, joint = found.means.mean(0), found.log_likelihood(batch, where)
        of_targets = found._replace(log_rates=None).log_likelihood(batch, batch[TARGET])
        low, high = (self.units.values(found.quantile(side)) for side in ((1 - BAND) / 2, (1 + BAND) / 2))
        return {
            "time": self.units.times(batch[TIMES]),
            "prediction": self.units.values(scaled),
            "low": low,
            "high": high,
            "scaled": scaled,
            "probability": found.cdf(batch[VALUES]),
            "counted": where.sum((1, 2)),
            "elbo": joint.mean(0) - found.kl,
            "iwae": log_mean_exp(joint + found.log_weights),
            "log_prob": log_mean_exp(of_targets),
        }

    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """The negative bounds, in nats an observed value; that log-likelihood of the targets; errors.

        `loss` is the bound by the mean over samples, `iwae` the tighter one by the mean of their weighted likelihoods
        (Burda et al. 2016), both of scaled values; `nll` is of values in the user's units. See `LatentErrors`.
        """
        batch, rows = solved(batch, rows)
        elbo, iwae, log_prob = (rows[name].double().sum() for name in SUMS)
        log_prob = log_prob - log_jacobian(self.units, batch[VALUES].double(), batch[TARGET])
        count = rows["counted"].sum()
        found = {"loss": -elbo / count, "iwae": -iwae / count, "nll": -log_prob / batch[TARGET].sum()}
        return {name: value.item() for name, value in found.items()} | self.errors.metrics(batch, rows)

    def details(self, model: nn.Module, batch: Batch, rows: Batch) -> dict[str, Any]:
        """Errors by channel and by how far ahead they look, calibration curves, and the std of the noise."""
        std = model.get_parameter(NOISE).exp()
        noise = std if self.units.is_log else std * std.new_tensor(self.units.std)
        return {
            **self.errors.details(*solved(batch, rows)),
            "noise_std": dict(zip(self.channel_names, noise.tolist(), strict=True)),
        }

    def shown(self, details: Mapping[str, Any]) -> Mapping[str, str]:
        """The noise."""
        log = " of the logarithm" if self.units.is_log else ""
        return {f"noise std{log}": ", ".join(f"{name} {std:.4g}" for name, std in details["noise_std"].items())}

    def figures(self, model: nn.Module, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """Series with their bands, the calibration curve, latent trajectories and samples from the prior."""
        assert isinstance(model, (LatentModel, SeriesModel))
        return latent_figures(self.axis, self.class_names, model, *solved(batch, rows), names)

    def prediction_figures(self, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """Series with their bands."""
        return latent_figures(self.axis, (), None, *solved(batch, rows), names)

    def table(self, batch: Batch, rows: Batch, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """A row for each series and time."""
        return forecast_table(self.axis, batch, rows, names)

    def extended(self, batch: Batch, until: float | str) -> Batch:
        """See `Task.extended`; the new times are as far apart as the others mostly are.

        Where training showed the first times of a series alone, no more are shown here: no encoder has read so many.
        """
        longer = extended(self.axis, batch, until)
        if not self.seen_times:
            return longer
        shown = longer[MASK].clone()
        shown[:, self.seen_times :] = False
        return {**longer, MASK: shown, TARGET: longer[TARGET] | longer[MASK] & ~shown}

    def _explained(
        self, model: LatentModel | SeriesModel, batch: Batch, count: int, generator: torch.Generator | None
    ) -> Explained:
        return explained(model, model.get_parameter(NOISE), batch, count, generator)

    def _weight_of_kl(self, progress: float) -> float:
        grown = min(1.0, progress / self.kl_until) if self.kl_until else 1.0
        return self.kl_weight * (self.kl_from + (1 - self.kl_from) * grown)
