"""Densities: how probable samples are, and what new ones look like; by a continuous normalizing flow."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from node_cli.batch import Batch
from node_cli.flow import INTEGRALS, DensityModel
from node_cli.ode.checks import require, require_at_least, require_choice
from node_cli.tasks.density_losses import FlowMatching, TraceEstimate
from node_cli.tasks.density_space import Scaling, Space, normal, uniform
from node_cli.tasks.task import Loss, Task, solved

OBJECTIVES = ("flow_matching", "likelihood")
CONDITIONS = ("label",)
OF_OBJECTIVE = {
    "flow_matching": ("coupling", "sigma"),
    "likelihood": ("num_probes", "kinetic", "jacobian", "total_derivative", "steer"),
}


class Density(Task):
    """A `DensityModel` of the `inputs` of a batch, given their `targets` if `condition` is `label`.

    Args:
        input_shape: of a sample.
        class_names, class_counts: of the labels, if there are any.
        scaling: how the dataset has scaled the inputs.
        num_levels: whole numbers that a value can be; None: values are real numbers.
        column_names: of the numbers of a point.
        objective: what is minimised: flow_matching, or (negative log-) likelihood.
        coupling, sigma: see `FlowMatching`.
        trace, noise: see `TraceEstimate`.
        num_probes, eval_probes: of each sample (hutchinson), in training and in evaluations.
        condition: label: a density for each class; None: one for all.
        kinetic, jacobian, total_derivative: weights of what is integrated along a path (see `node_cli.flow`) beside the
            negative log-likelihood in nats a dimension.
        steer: the time of the base is drawn from -steer to steer for each batch (Ghosh et al. 2020).
        logit: see `Space`.

    Raises:
        ValueError: a setting is out of range, or does not go with the data.
    """

    model_type = DensityModel
    metric_names = ("loss", "nll", "bits_per_dim")
    objective = ("bits_per_dim", "min")
    differences = ("bits_per_dim",)
    hidden_rows = ("loss",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        class_names: tuple[str, ...] = (),
        class_counts: tuple[int, ...] = (),
        scaling: Scaling | None = None,
        num_levels: int | None = None,
        column_names: tuple[str, ...] = (),
        *,
        objective: str,
        coupling: str,
        sigma: float,
        trace: str,
        noise: str,
        num_probes: int,
        eval_probes: int,
        condition: str | None,
        kinetic: float,
        jacobian: float,
        total_derivative: float,
        steer: float,
        logit: float | None,
    ) -> None:
        require_choice("objective", objective, OBJECTIVES)
        require_at_least("num_probes", num_probes, 1)
        require_at_least("eval_probes", eval_probes, 2)
        require(condition in (None, *CONDITIONS), "condition must be label or null", condition)
        require(0 <= steer < 1, "steer must be 0 or more and below 1", steer)
        weights = dict(zip(INTEGRALS, (kinetic, jacobian, total_derivative), strict=True))
        for name, weight in weights.items():
            require_at_least(name, weight, 0)
        if condition and not class_names:
            raise ValueError("condition=label needs a dataset with labels, which this one has not: set it to null")
        self.is_likelihood = objective == "likelihood"
        self.space = Space(tuple(input_shape), scaling, num_levels, logit)
        self.trace = TraceEstimate(trace, noise)
        self.matching = FlowMatching(coupling, sigma)
        self.num_probes, self.eval_probes = num_probes, eval_probes
        self.condition, self.class_names, self.class_counts = condition, class_names, class_counts
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.steer = steer
        self.inputs = ("inputs", "targets") if condition else ("inputs",)
        self.offers = {"num_conditions": len(class_names) if condition else 0}
        self.row_names = {"targets": class_names} | ({"sample": column_names} if column_names else {})

    def choose(self, model: nn.Module, train: Batch) -> None:
        """Scales the model to the training data."""
        assert isinstance(model, DensityModel)
        model.fit_scale(self.space.states(train["inputs"], torch.Generator().manual_seed(0))[0])

    def unused(self, model: nn.Module) -> Mapping[str, str]:
        """See `Task.unused`."""
        other = "flow_matching" if self.is_likelihood else "likelihood"
        found = {f"task.{key}": f"with this task.objective: set task.objective={other}" for key in OF_OBJECTIVE[other]}
        if self.trace.is_exact:
            probes = "with task.trace=exact: set task.trace=hutchinson"
            found |= dict.fromkeys(("task.noise", "task.num_probes", "task.eval_probes"), probes)
        if not self.space.is_discrete:
            found["task.logit"] = "on values that are real numbers: take images of whole numbers"
        return found

    def loss(self, model: nn.Module, batch: Batch, progress: float) -> Loss:
        """A sum over samples: of squares over slopes, or of negative log-densities in nats and what is added to them.

        In training the noise is torch's own; else it is always the same.
        """
        assert isinstance(model, DensityModel)
        generator = None if model.training else torch.Generator().manual_seed(0)
        labels = self._labels(batch)
        states, log_det = self.space.states(batch["inputs"], generator)
        count = states.new_tensor(len(states))
        if not self.is_likelihood:
            return Loss(self.matching(model, states, self._source(batch), labels, generator).sum(), count, {})
        start = self.steer * (2 * uniform(states, (), None).item() - 1) if model.training and self.steer else 0.0
        found = self.trace(model, states, labels, self.num_probes, generator, tuple(self.weights), start)
        nll = -(found.log_prob + log_det).sum()
        integrals = {name: found.integrals[name].sum() for name in self.weights}
        penalty = sum((weight * integrals[name] for name, weight in self.weights.items()), torch.zeros_like(nll))
        shown = {"nll": nll, **integrals}
        return Loss(nll + self.space.dims * penalty, count, {name: value.detach() for name, value in shown.items()})

    def predict(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """The log-density of each sample in nats, in the user's units, its standard error; hidden: its loss."""
        assert isinstance(model, DensityModel)
        labels = self._labels(batch)
        states, log_det = self.space.states(batch["inputs"], generator)
        found = self.trace(model, states, labels, self.eval_probes, generator)
        rows = {"log_prob": found.log_prob + log_det}
        if not self.trace.is_exact:
            rows["std_error"] = found.std_error
        if self.is_likelihood:
            return {**rows, "loss": -rows["log_prob"]}
        return {**rows, "loss": self.matching(model, states, self._source(batch), labels, generator)}

    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """The loss, without what is added to a likelihood, and the negative log-density in nats and bits."""
        _, rows = solved(batch, rows)
        nll = -rows["log_prob"].double().mean().item()
        loss = rows["loss"].double().mean().item()
        return {"loss": loss, "nll": nll, "bits_per_dim": self.space.bits_per_dim(nll)}

    def samples(self, model: nn.Module, count: int, generator: torch.Generator) -> Batch:
        """See `Task.samples`: in the user's units; given a label, of labels as frequent as in the training data."""
        assert isinstance(model, DensityModel)
        like = next(model.parameters())
        labels = None
        if self.condition:
            weights = torch.tensor(self.class_counts or [1] * len(self.class_names), dtype=torch.float64)
            labels = torch.multinomial(weights, count, replacement=True, generator=generator).to(like.device)
        base = normal(like, (count, *self.space.shape), generator)
        rows = {"sample": self.space.values_of(model.carried(base, labels)[-1])}
        return rows if labels is None else {**rows, "targets": labels}

    def _labels(self, batch: Batch) -> Tensor | None:
        return batch["targets"] if self.condition else None

    def _source(self, batch: Batch) -> Tensor | None:
        return batch.get("source")
