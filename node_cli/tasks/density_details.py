"""What stands beside a log-likelihood: how far it may be off, what it costs, and what needs no network."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from node_cli.batch import Batch, num_samples, take, to_device
from node_cli.flow import DensityModel
from node_cli.ode.arguments import solver_of
from node_cli.ode.block import solving_modules
from node_cli.tasks.density_losses import TraceEstimate
from node_cli.tasks.density_space import Space
from node_cli.tasks.wasserstein import MOST, wasserstein2, wasserstein2_floor

FEW = 64  # samples that are solved once more
NUM_DRAWS = 4  # of the noise of whole numbers
TIGHT = 1e-7  # tolerance of the solve in float64


class Densities(Protocol):
    """What is needed of the task."""

    space: Space
    trace: TraceEstimate
    has_source: bool

    def labels_of(self, batch: Batch) -> Tensor | None:
        """What the density of each sample is conditioned by."""

    def predict(self, model: nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
        """See `Task.predict`."""

    def samples(self, model: nn.Module, count: int, generator: torch.Generator) -> Batch:
        """See `Task.samples`."""


def errors_of_likelihood(task: Densities, model: DensityModel, batch: Batch, rows: Batch) -> dict[str, float]:
    """How far the mean log-likelihood of a split may be off, in nats a sample, by each of its causes.

    `samples`, `probes` and `dequantization` are standard errors: of a split of so many samples, of the probes of the
    trace, of the noise of whole numbers. `solver` is how far the first samples are from a solve in float64 at 1e-7.
    """
    count = num_samples(rows)
    found = {"samples": rows["log_prob"].double().std().item() / count**0.5 if count > 1 else math.nan}
    if not task.trace.is_exact:
        found["probes"] = rows["std_error"].double().square().mean().sqrt().item() / count**0.5
    few = take(batch, slice(FEW))
    found["solver"] = _by_solver(task, model, few)
    if task.space.is_discrete:
        draws = torch.stack([_by_noise(task, model, few, seed) for seed in range(NUM_DRAWS)])
        found["dequantization"] = draws.double().var(0).mean().sqrt().item() / count**0.5
    return found


def costs_and_round_trip(task: Densities, model: DensityModel, batch: Batch) -> dict[str, Any]:
    """Evaluations for the log-densities of the first samples and for as many new ones; from data to base and back."""
    few = take(batch, slice(FEW))
    states, _ = task.space.states(few["inputs"], torch.Generator().manual_seed(0))
    labels = task.labels_of(few)
    probes = None if task.trace.is_exact else task.trace.probes(states, 1, torch.Generator().manual_seed(0))
    found = model.log_density(states, probes, labels)
    back = model.scaled(model.carried(found.base, labels)[-1])
    there = model.scaled(states)
    missed = ((back - there).double().norm() / there.double().norm()).item()
    return {"nfe": {"likelihood": found.nfe, "samples": model.nfe}, "round_trip": missed}


def distance_of_samples(task: Densities, model: DensityModel, splits: Mapping[str, Batch]) -> dict[str, float]:
    """The 2-Wasserstein distance of new samples, or of what a source is carried to, from the test split, and its floor.

    The floor is that of two sets of as many training samples: a model that is the distribution itself is as far off.
    """
    train, test = (task.space.values(splits[name]["inputs"]) for name in ("train", "test"))
    count = min(MOST, len(train) // 2, len(test))
    generator = torch.Generator().manual_seed(0)
    if task.has_source:
        drawn = task.predict(model, take(splits["test"], slice(count)), generator)["sample"]
    else:
        drawn = task.samples(model, count, generator)["sample"]
    floor = wasserstein2_floor(train, count, torch.Generator().manual_seed(0))
    return {"samples": wasserstein2(drawn, test[:count]), "floor": floor}


def in_words(details: Mapping[str, Any], unit: str, factor: float) -> Mapping[str, str]:
    """What the functions above have found, for a table; nats times `factor` are in `unit`."""
    found = {}
    if "errors" in details:
        parts = [f"{value * factor:.2g} {name}" for name, value in details["errors"].items() if value is not None]
        found["off by"] = f"{', '.join(parts)} ({unit})"
        found["round trip"] = f"{details['round_trip']:.2g} off, relative"
        found["NFE of"] = ", ".join(f"{count} {name}" for name, count in details["nfe"].items())
    for name, nll in details.get("baselines", {}).items():
        found[name.replace("_", " ")] = f"{nll * factor:.4g} {unit}"
    if "wasserstein" in details:
        distance = details["wasserstein"]
        found["2-Wasserstein"] = f"{distance['samples']:.3g} (floor {distance['floor']:.3g})"
    return found


def probes_beside_exact(task: Densities, model: DensityModel, batch: Batch, num_probes: int) -> tuple[float, float]:
    """How far log-densities by probes are from those by the exact trace, on average, and their standard error."""
    states, _ = task.space.states(batch["inputs"], torch.Generator().manual_seed(0))
    labels, generator = task.labels_of(batch), torch.Generator().manual_seed(0)
    with torch.no_grad():
        exact = replace(task.trace, trace="exact")(model, states, labels, num_probes, generator)
        found = replace(task.trace, trace="hutchinson")(model, states, labels, num_probes, generator)
    off = (found.log_prob - exact.log_prob).double().mean().item()
    return off, found.std_error.double().square().mean().sqrt().item() / len(states) ** 0.5


def _by_solver(task: Densities, model: DensityModel, few: Batch) -> float:
    own = task.predict(model, few, torch.Generator().manual_seed(0))["log_prob"]
    device = torch.device("cpu") if own.device.type == "mps" else own.device
    tight = copy.deepcopy(model).to(device, torch.float64)
    for module in solving_modules(tight):
        module.solver = solver_of("dopri5", TIGHT, TIGHT, {})[0]
    true = task.predict(tight, to_device(few, device, torch.float64), torch.Generator().manual_seed(0))["log_prob"]
    return (own.to(true).mean() - true.mean()).abs().item()


def _by_noise(task: Densities, model: DensityModel, few: Batch, seed: int) -> Tensor:
    """Log-densities with noise of this seed, and probes that are the same for all."""
    states, log_det = task.space.states(few["inputs"], torch.Generator().manual_seed(1 + seed))
    found = task.trace(model, states, task.labels_of(few), 1, torch.Generator().manual_seed(0))
    return found.log_prob + log_det
