"""Trajectories: a model of time series, fitted to what was observed and measured by what it forecasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from node_cli.batch import Batch, take
from node_cli.ode.checks import require, require_at_least, require_choice, require_positive
from node_cli.ode.errors import ArgumentError
from node_cli.ode.solution import SolveError
from node_cli.series import MASK, TARGET, TIMES, VALUES, SeriesModel, Units, all_observed, visible
from node_cli.tasks.forecasts import Axis, extended, forecast_table
from node_cli.tasks.intervals import in_words, parameter_intervals
from node_cli.tasks.kinetic import Kinetic
from node_cli.tasks.series_checks import check_length, check_season, check_something_to_fit, chosen_strategy
from node_cli.tasks.series_cutting import STRATEGIES, first_times, jumps_between, segments, windows
from node_cli.tasks.series_loss import SeriesLoss, mean_of_targets
from node_cli.tasks.smoothing import LastOf, smooth
from node_cli.tasks.task import Loss, Task, solved
from node_cli.tasks.trajectory_errors import TrajectoryErrors
from node_cli.tasks.trajectory_figures import trajectory_figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW_SERIES = 64  # of the training data, which say whether a fit is stuck
FIT = ("train_loss", "train_loss_of_the_mean")
HALF = 0.5  # of the loss of the mean of the data: a model that is not below it is stuck near the mean
STUCK = "hardly better than the mean of the training data: train on pieces, with task.strategy=windows"


class Trajectory(Task):
    """A `SeriesModel` that maps the observations that `mask` shows to values at all times.

    Args:
        units: the way back to the user's units.
        channel_names: a name for each channel.
        time_name, time_unit: of the axis of time, in figures.
        channel_units: a word for the unit of each channel; empty: not known.
        train_ends: the last time that is trained on of each series, by `start`, where later ones are of other splits.
        position_channels: latitude and longitude in degrees, if they are channels; then there are errors in km.
        loss: of scaled values: mse, mae or huber; log_mse: of the logarithms of values in the user's units.
        channel_weights: what the errors of each channel are multiplied by; None: all alike.
        strategy: what is solved in training. full: each series from its start; growing: only its beginning first;
            windows: pieces of it, each from its first observation; multiple_shooting: pieces, each from a learned
            state, which have to meet; auto: windows or full, see `chosen_strategy`.
        window: times in a piece (windows, and auto).
        num_segments: pieces of a series (multiple_shooting).
        continuity: weight of the mean square by which segments miss each other.
        grow_from, grow_until: the fraction of the times that counts first (growing), and the progress of the run at
            which all count.
        match_until: until this progress of the run the slopes of the vector field are matched with those of a smooth
            curve through the data, which takes no solve (collocation); 0: never.
        season: times in a season, for a forecast that repeats the last one; None: there is none.
        kinetic: weight of the squared slope of the ODE in the loss, see `Kinetic`.

    Raises:
        ValueError: a setting is out of range.
    """

    model_type = SeriesModel
    objective = ("loss", "min")
    hidden_rows = ("scaled", "one_step")

    def __init__(
        self,
        units: Units,
        channel_names: tuple[str, ...],
        time_name: str = "time",
        time_unit: str = "",
        position_channels: tuple[int, ...] = (),
        calendar: str = "",
        channel_units: tuple[str, ...] = (),
        train_ends: tuple[float, ...] = (),
        *,
        loss: str,
        channel_weights: list[float] | None,
        strategy: str,
        window: int,
        num_segments: int,
        continuity: float,
        grow_from: float,
        grow_until: float,
        match_until: float,
        season: int | None,
        kinetic: float = 0.0,
    ) -> None:
        require_choice("strategy", strategy, tuple(STRATEGIES))
        for name, number in (("grow_from", grow_from), ("grow_until", grow_until)):
            require(0 < number <= 1, f"{name} must be above 0 and at most 1", number)
        require(0 <= match_until <= 1, "match_until must be from 0 to 1", match_until)
        require_at_least("window", window, 2)
        require_at_least("num_segments", num_segments, 2)
        require(season is None or season >= 1, "season must be at least 1 or null", season)
        require_positive(continuity=continuity)
        self._loss = SeriesLoss(loss, units, channel_names, channel_weights)
        self._smooth = LastOf(smooth)
        self.kinetic = Kinetic(kinetic)
        self.units, self.channel_names = units, channel_names
        self.axis = Axis(units, channel_names, time_name, time_unit, calendar, channel_units, train_ends)
        self.strategy, self.why = strategy, ""
        self.window, self.num_segments, self.continuity = window, num_segments, continuity
        self.grow_from, self.grow_until, self.match_until, self.season = grow_from, grow_until, match_until, season
        self.offers = {"num_segments": num_segments if strategy == "multiple_shooting" else 1}
        self.row_names = {"prediction": channel_names}
        has_logarithms = units.is_log or loss == "log_mse"
        self.errors = TrajectoryErrors(units, channel_names, channel_units, position_channels, season, has_logarithms)
        self.metric_names = ("loss", *self.errors.names)

    def choose(self, model: nn.Module, train: Batch) -> None:
        """See `Task.choose`."""
        assert isinstance(model, SeriesModel)
        if self.strategy == "auto":
            self.strategy, self.why = chosen_strategy(model, train, self.window)

    def check(self, model: nn.Module, splits: Mapping[str, Batch]) -> None:
        """See `Task.check`."""
        assert isinstance(model, SeriesModel)
        self.kinetic.check(model)
        train = splits["train"]
        if self.strategy == "windows":
            check_length("task.window", self.window, self.window, train)
            with torch.no_grad():  # a start that is learned
                model(visible(windows(take(train, slice(1)), self.window)))
        elif model.returns_seen:
            check_something_to_fit(train)
        if self.strategy == "multiple_shooting":
            check_length("task.num_segments", self.num_segments, self.num_segments + 1, train)
        for batch in splits.values():
            self._loss(batch[VALUES], batch)  # values without a logarithm
        if self.season:
            check_season(splits, self.season)
        if self.match_until:
            with torch.no_grad():
                self._matching(model, take(train, slice(1)))

    def chosen(self) -> Mapping[str, tuple[str, str]]:
        """See `Task.chosen`."""
        return {"task.strategy": (self.strategy, self.why)} if self.why else {}

    def unused(self, model: nn.Module) -> Mapping[str, str]:
        """See `Task.unused`."""
        assert isinstance(model, SeriesModel)
        effective = STRATEGIES[self.strategy] + (STRATEGIES["auto"] if self.why else ())
        of_others = {
            f"task.{key}": f"with task.strategy={self.strategy}: set task.strategy={strategy}"
            for strategy, keys in STRATEGIES.items()
            for key in keys
            if key not in effective
        }
        unsolved = dict.fromkeys(
            ("task.strategy", "task.kinetic", *(f"task.{key}" for key in effective)),
            "with task.match_until=1, as training then solves nothing: lower that",
        )
        alone = {"task.channel_weights": "on data of one channel: take more channels"}
        return {
            **of_others,
            **self.kinetic.unused(model),
            **(unsolved if self.match_until == 1 else {}),
            **(alone if len(self.channel_names) == 1 else {}),
            **{f"model.{key}": reason for key, reason in model.unused.items()},
        }

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> Loss:
        """A sum over the observed values whose error counts, and the number of these, weighted by channel."""
        assert isinstance(model, SeriesModel)
        if model.training:  # and not in an audit, which asks for the loss alone
            model.prune(progress)
        with self.kinetic.of_solves(model) as energies:
            loss = self._fit(model, batch, progress)
        loss = self.kinetic.beside(loss, energies)
        penalty = model.penalty()
        total = loss.total if penalty is None else loss.total + penalty * loss.weight
        named = {name: value.detach() * loss.weight for name, value in model.named_values().items()}
        return Loss(total, loss.weight, {**loss.metrics, **named})

    def phase(self, progress: float) -> str:
        """Slopes are matched first, then solves are fitted."""
        return "matching" if progress < self.match_until else "fitting"

    def predict(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """Times and values in the user's units; hidden: as the model has them, and predicted one step ahead."""
        assert isinstance(model, SeriesModel)
        seen = {**batch, MASK: all_observed(batch)}
        scaled = model(visible(batch))
        rows = {"time": self.units.times(batch[TIMES]), "prediction": self.units.values(scaled)}
        return {**rows, "scaled": scaled, "one_step": model.one_step(seen)}

    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """Errors at all targets of a split, see `TrajectoryErrors`: of the model, and of what needs no training."""
        batch, rows = solved(batch, rows)
        loss = self._loss(rows["scaled"], batch)
        return {"loss": (loss.total / loss.weight).item(), **self.errors.metrics(batch, rows)}

    def details(self, model: nn.Module, batch: Batch, rows: Batch) -> dict[str, Any]:
        """Errors by channel and by how far ahead they look; what the model says in numbers and formulas."""
        assert isinstance(model, SeriesModel)
        batch, rows = solved(batch, rows)
        found = self.errors.details(batch, rows)
        if model.equations():
            found["equations"] = model.equations()
        return found

    def fit_details(self, model: nn.Module, splits: Mapping[str, Batch]) -> dict[str, Any]:
        """The loss of the first series beside that of the mean of the data; parameters with their intervals."""
        assert isinstance(model, SeriesModel)
        train, found = splits["train"], dict[str, Any]()
        if model.named_values():
            found["parameters"] = {name: {"value": value.item()} for name, value in model.named_values().items()}
        try:
            few = self._cut(take(train, slice(FEW_SERIES)), 1.0)
            losses = (self._loss(scaled, few) for scaled in (model(visible(few)), mean_of_targets(few)))
            found["fit"] = dict(zip(FIT, [(loss.total / loss.weight).item() for loss in losses], strict=True))
            if model.named_values():
                found["parameters"] = parameter_intervals(model, lambda: self._residuals(model, train))
        except SolveError as error:  # of a series of train
            found["fit"] = {"failed": str(error)}
        return found

    def figures(self, model: nn.Module, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """Observed and predicted series, the vector field in the plane, the error by horizon, energies."""
        assert isinstance(model, SeriesModel)
        return trajectory_figures(self.axis, model, batch, rows, names)

    def prediction_figures(self, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """Observed and predicted series."""
        return trajectory_figures(self.axis, None, batch, rows, names)

    def shown(self, details: Mapping[str, Any]) -> Mapping[str, str]:
        """Errors of channels of several units; parameters with their intervals, of others the equations alone."""
        found = details.get("parameters", {})
        parameters = {
            name: in_words(each) for name, each in found.items() if "std" in each or "equations" not in details
        }
        sides = [equation.split(" = ", 1) for equation in details.get("equations", [])]
        own, mean = (details.get("fit", {}).get(name, 0.0) for name in FIT)
        stuck = {"fit": STUCK} if own > HALF * mean else {}
        return self.errors.in_words(details) | stuck | parameters | {left: f"= {right}" for left, right in sides}

    def table(self, batch: Batch, rows: Batch, names: Sequence[str]) -> Mapping[str, np.ndarray]:
        """A row for each series and time."""
        return forecast_table(self.axis, batch, rows, names)

    def extended(self, batch: Batch, until: float | str) -> Batch:
        """See `Task.extended`; the new times are as far apart as the others mostly are."""
        return extended(self.axis, batch, until)

    def _cut(self, batch: Batch, progress: float) -> Batch:
        assert self.strategy != "auto", "call choose first"
        if self.strategy == "windows":
            return windows(batch, self.window)
        if self.strategy == "growing":
            fraction = self.grow_from + (1 - self.grow_from) * min(1.0, progress / self.grow_until)
            seen = int(batch[TARGET].any(2).any(0).float().argmax().item())  # times before the first error
            return first_times(batch, max(2, seen + max(1, round(fraction * (batch[TIMES].shape[1] - seen)))))
        return batch

    def _fit(self, model: SeriesModel, batch: Batch, progress: float) -> Loss:
        if self.phase(progress) == "matching":
            return self._matching(model, batch)
        if self.strategy == "multiple_shooting":
            return self._shooting(model, batch)
        batch = self._cut(batch, progress)
        return self._loss(model(visible(batch)), batch)

    def _shooting(self, model: SeriesModel, batch: Batch) -> Loss:
        cut, count = segments(batch, self.num_segments)
        pieces = model(visible(cut))
        loss = self._loss(pieces, cut)
        gaps = jumps_between(pieces, count).square().mean()
        return Loss(
            loss.total + self.continuity * gaps * loss.weight,
            loss.weight,
            {**loss.metrics, "gap": gaps.detach() * loss.weight},
        )

    def _matching(self, model: SeriesModel, batch: Batch) -> Loss:
        observed = batch[MASK] | batch[TARGET]
        values, slopes = self._smooth(batch[TIMES], batch[VALUES], observed)
        known = slopes.isfinite()
        everything = {**batch, VALUES: values.to(batch[VALUES]), MASK: torch.ones_like(observed)}
        predicted = model.slopes(everything)
        if predicted is None:
            raise ArgumentError(
                "task.match_until needs the slopes of observed values, which this model does not have: set it to 0, or "
                "take a model of these values alone (without model.augment_dim or an encoder)"
            )
        weights = known * predicted.new_tensor(self._loss.channel_weights)
        errors = torch.where(known, predicted - slopes.nan_to_num().to(predicted), 0.0)
        return Loss((weights * errors.square()).sum(), weights.sum(), {})

    def _residuals(self, model: SeriesModel, train: Batch) -> Tensor:
        """Of the training data, cut as in training."""
        batch = self._cut(train, 1.0)
        return self._loss.residuals(model(visible(batch)), batch)
