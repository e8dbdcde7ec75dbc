"""Densities: how probable samples are, and what new ones look like; by a continuous normalizing flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from node_cli.batch import Batch, take
from node_cli.flow import INTEGRALS, DensityModel
from node_cli.ode.block import solving_modules
from node_cli.ode.checks import require, require_at_least, require_choice
from node_cli.tasks.density_baselines import baselines
from node_cli.tasks.density_details import (
    costs_and_round_trip,
    distance_of_samples,
    errors_of_likelihood,
    in_words,
    probes_beside_exact,
)
from node_cli.tasks.density_figures import density_figures
from node_cli.tasks.density_losses import FlowMatching, TraceEstimate
from node_cli.tasks.density_space import Scaling, Space, normal, uniform
from node_cli.tasks.task import Loss, Task, solved
from node_cli.tasks.wasserstein import MOST, wasserstein2

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_SHOWN, NUM_TIMES = 500, 21  # samples in a figure, and times of their paths
MOST_DIMS = 256  # of an audit by the exact trace
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
        has_source: the samples of a batch come with a `source` of the same shape, which takes the place of a normal
            base: there is no log-density then, and samples are compared with the data.
        is_augmented: training images are changed at random, which is refused.
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
    metric_names: tuple[str, ...] = ("loss", "nll", "bits_per_dim")
    objective = ("bits_per_dim", "min")
    differences: tuple[str, ...] = ("bits_per_dim",)
    hidden_rows = ("loss",)

    def __init__(
        self,
        input_shape: tuple[int, ...],
        class_names: tuple[str, ...] = (),
        class_counts: tuple[int, ...] = (),
        scaling: Scaling | None = None,
        num_levels: int | None = None,
        column_names: tuple[str, ...] = (),
        has_source: bool = False,
        is_augmented: bool = False,
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
        if is_augmented:
            raise ValueError("task=density needs images as they are: set dataset.crop_padding=0 and dataset.flip=false")
        if coupling == "conditional_ot" and not condition:
            raise ValueError("coupling=conditional_ot needs task.condition=label: take task.coupling=ot instead")
        if condition and not class_names:
            raise ValueError("condition=label needs a dataset with labels, which this one has not: set it to null")
        self.is_likelihood, self.has_source = objective == "likelihood", has_source
        self.space = Space(tuple(input_shape), scaling, num_levels, logit)
        self.trace = TraceEstimate(trace, noise)
        self.matching = FlowMatching(coupling, sigma)
        self.num_probes, self.eval_probes = num_probes, eval_probes
        self.condition, self.class_names, self.class_counts = condition, class_names, class_counts
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.steer = steer
        self.inputs: tuple[str, ...] = ("inputs", "targets") if condition else ("inputs",)
        self.offers = {"num_conditions": len(class_names) if condition else 0}
        if has_source:
            require(not self.is_likelihood, "objective must be flow_matching on a dataset with a source", objective)
            self.metric_names, self.objective, self.differences = ("loss", "wasserstein"), ("wasserstein", "min"), ()
            self.inputs = (*self.inputs, "source")
        self.column_names = column_names
        self.row_names = {"targets": class_names} | ({"sample": column_names} if column_names else {})

    def choose(self, model: nn.Module, train: Batch) -> None:
        """Scales the model to the training data."""
        assert isinstance(model, DensityModel)
        model.fit_scale(self.space.states(train["inputs"], torch.Generator().manual_seed(0))[0])

    def check(self, model: nn.Module, splits: Mapping[str, Batch]) -> None:
        """See `Task.check`."""
        blocks = len(solving_modules(model))
        if blocks * self.steer >= 1:
            raise ValueError(
                f"task.steer must be below {1 / blocks:.3g}, the time of the first of {blocks} blocks, got {self.steer}"
            )

    def unused(self, model: nn.Module) -> Mapping[str, str]:
        """See `Task.unused`."""
        own, other = OBJECTIVES[self.is_likelihood], OBJECTIVES[not self.is_likelihood]
        found = {f"task.{key}": f"with task.objective={own}: set task.objective={other}" for key in OF_OBJECTIVE[other]}
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
        labels = self.labels_of(batch)
        states, log_det = self.space.states(batch["inputs"], generator)
        count = states.new_tensor(len(states))
        if not self.is_likelihood:
            return Loss(self.matching(model, states, batch.get("source"), labels, generator).sum(), count, {})
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
        labels = self.labels_of(batch)
        states, log_det = self.space.states(batch["inputs"], generator)
        if self.has_source:
            if "source" not in batch:
                raise ValueError("a sample of source is needed for each of inputs: its base is no normal distribution")
            sample = self.space.values_of(model.carried(model.scaled(batch["source"]), labels)[-1])
            return {"sample": sample, "loss": self.matching(model, states, batch["source"], labels, generator)}
        found = self.trace(model, states, labels, self.eval_probes, generator)
        rows = {"log_prob": found.log_prob + log_det}
        if not self.trace.is_exact:
            rows["std_error"] = found.std_error
        if self.is_likelihood:
            return {**rows, "loss": -rows["log_prob"]}
        return {**rows, "loss": self.matching(model, states, batch.get("source"), labels, generator)}

    def metrics(self, batch: Batch, rows: Batch) -> dict[str, float]:
        """The loss, without what is added to a likelihood, and the negative log-density in nats and bits."""
        batch, rows = solved(batch, rows)
        loss = rows["loss"].double().mean().item()
        if self.has_source:
            truth = self.space.values(batch["inputs"])
            return {"loss": loss, "wasserstein": wasserstein2(rows["sample"][:MOST], truth[:MOST])}
        nll = -rows["log_prob"].double().mean().item()
        return {"loss": loss, "nll": nll, "bits_per_dim": self.space.bits_per_dim(nll)}

    def details(self, model: nn.Module, batch: Batch, rows: Batch) -> dict[str, Any]:
        """How far the log-likelihood may be off, what it and samples cost, the way to the base and back."""
        assert isinstance(model, DensityModel)
        batch, rows = solved(batch, rows)
        if self.has_source:
            return {}
        return {
            "errors": errors_of_likelihood(self, model, batch, rows),
            **costs_and_round_trip(self, model, batch),
        }

    def fit_details(self, model: nn.Module, splits: Mapping[str, Batch]) -> dict[str, Any]:
        """The test split by densities that need no network, in nats; in the plane, the distance of samples from it."""
        assert isinstance(model, DensityModel)
        found: dict[str, Any] = {}
        if not self.has_source:
            train, val, test = (splits[name]["inputs"] for name in ("train", "val", "test"))
            found["baselines"] = baselines(train, val, test, self.space)
        if self.space.shape == (2,):
            found["wasserstein"] = distance_of_samples(self, model, splits)
        return found

    def figures(self, model: nn.Module, batch: Batch, rows: Batch, names: Sequence[str] = ()) -> Mapping[str, Figure]:
        """In the plane, a map of the density with the data, samples, and paths from the base; of images, samples."""
        assert isinstance(model, DensityModel)
        batch, _ = solved(batch, rows)
        shown = take(batch, slice(NUM_SHOWN))
        generator = torch.Generator().manual_seed(0)
        if self.has_source:
            base, labels = model.scaled(shown["source"]), self.labels_of(shown)
        else:
            base = normal(shown["inputs"], (NUM_SHOWN, *self.space.shape), generator)
            labels = self._drawn_labels(NUM_SHOWN, generator, base.device)
        paths = model.carried(base, labels, NUM_TIMES)
        values = self.space.values_of(paths.flatten(0, 1)).view(paths.shape)
        known = None if self.has_source else partial(self.log_prob, model)
        in_plane, is_image = self.space.shape == (2,), len(self.space.shape) == 3
        data = self.space.values(shown["inputs"])
        image_shape = self.space.shape if is_image else None
        return density_figures(known, values[-1], data, values if in_plane else None, image_shape, self.column_names)

    def shown(self, details: Mapping[str, Any]) -> Mapping[str, str]:
        """In bits a dimension where values are whole numbers, and in nats elsewhere."""
        unit, factor = ("bits/dim", self.space.bits_per_dim(1.0)) if self.space.is_discrete else ("nats", 1.0)
        return in_words(details, unit, factor)

    def audit_notes(self, model: nn.Module, batch: Batch) -> Sequence[str]:
        """The log-density by probes beside that by the exact trace."""
        assert isinstance(model, DensityModel)
        if self.has_source or self.space.dims > MOST_DIMS:
            return ()
        off, error = probes_beside_exact(self, model, batch, self.eval_probes)
        probes = f"log-densities by {self.eval_probes} probes of each sample"
        trace = f"the exact trace; their own standard error is {error:.2g}"
        return [f"{probes} are on average {off:+.2g} nats off those by {trace}"]

    def samples(self, model: nn.Module, count: int, generator: torch.Generator, label: str | None = None) -> Batch:
        """See `Task.samples`; of all labels, as frequent as in the training data."""
        assert isinstance(model, DensityModel)
        if self.has_source:
            raise ValueError(f"samples={count}: this run carries a source of its dataset, not noise: leave it out")
        if label is not None and (not self.condition or label not in self.class_names):
            known = ", ".join(self.class_names) if self.condition else "none, as task.condition=null"
            raise ValueError(f"label must be one that samples were conditioned by ({known}), got {label}")
        like = next(model.parameters())
        labels = self._drawn_labels(count, generator, like.device, label)
        base = normal(like, (count, *self.space.shape), generator)
        rows = {"sample": self.space.values_of(model.carried(base, labels)[-1])}
        return rows if labels is None else {**rows, "targets": labels}

    def log_prob(self, model: DensityModel, values: Tensor) -> Tensor:
        """Exact, of real numbers in the user's units; of several classes, as frequent as they are."""
        states, log_det = self.space.states(self.space.inputs(values), None)
        if not self.condition:
            return model.log_density(states, None).estimates[:, 0] + log_det
        counts = states.new_tensor(self.class_counts or (1,) * len(self.class_names))
        each = [
            model.log_density(states, None, torch.full((len(states),), k, device=states.device)).estimates[:, 0]
            for k in range(len(counts))
        ]
        return (torch.stack(each, 1) + (counts / counts.sum()).log()).logsumexp(1) + log_det

    def labels_of(self, batch: Batch) -> Tensor | None:
        """What the density of each sample is conditioned by; None: nothing."""
        return batch["targets"] if self.condition else None

    def _drawn_labels(
        self, count: int, generator: torch.Generator, device: torch.device, label: str | None = None
    ) -> Tensor | None:
        if not self.condition:
            return None
        asked = self.class_names if label is None else (label,)
        counts = dict(zip(self.class_names, self.class_counts or (1,) * len(self.class_names), strict=True))
        weights = torch.tensor([counts[name] * (name in asked) for name in self.class_names]).double()
        return torch.multinomial(weights, count, replacement=True, generator=generator).to(device)
