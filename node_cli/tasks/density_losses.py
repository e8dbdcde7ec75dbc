"""What a flow is trained by: the likelihood of samples, or the slopes of straight paths to them (flow matching)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from node_cli.flow import DensityModel
from node_cli.ode.checks import require_at_least, require_choice
from node_cli.tasks.couplings import COUPLINGS, coupled
from node_cli.tasks.density_space import normal, uniform

TRACES = ("hutchinson", "exact")
NOISES = ("rademacher", "gaussian")


class Estimates(NamedTuple):
    """Log-densities `(n,)` of states in nats, the standard error of each by its probes, and the integrals by name."""

    log_prob: Tensor
    std_error: Tensor
    integrals: Mapping[str, Tensor]


@dataclass(frozen=True)
class TraceEstimate:
    """How the trace of a Jacobian is found.

    Args:
        trace: hutchinson, by random probes; exact, by as many products as a sample has dimensions.
        noise: of the probes: rademacher (+1 or -1) or gaussian.

    Raises:
        ValueError: an unknown name.
    """

    trace: str
    noise: str

    def __post_init__(self) -> None:
        require_choice("trace", self.trace, TRACES)
        require_choice("noise", self.noise, NOISES)

    @property
    def is_exact(self) -> bool:
        """Whether there are no probes."""
        return self.trace == "exact"

    def __call__(
        self,
        model: DensityModel,
        states: Tensor,
        labels: Tensor | None,
        num_probes: int,
        generator: torch.Generator | None,
        integrals: Sequence[str] = (),
        start: float = 0.0,
    ) -> Estimates:
        """The log-densities of states; the probes come from `generator` (on the CPU), None: from torch's own."""
        probes = None if self.is_exact else self.probes(states, num_probes, generator)
        found = model.log_density(states, probes, labels, integrals, start)
        each = found.estimates
        std = each.std(1) / each.shape[1] ** 0.5 if each.shape[1] > 1 else torch.zeros_like(each[:, 0])
        return Estimates(each.mean(1), std, found.integrals)

    def probes(self, states: Tensor, num_probes: int, generator: torch.Generator | None) -> Tensor:
        """`(probes, n, ...)`, of mean 0 and covariance 1."""
        shape = (num_probes, *states.shape)
        if self.noise == "gaussian":
            return normal(states, shape, generator)
        return torch.where(uniform(states, shape, generator) < 0.5, -1.0, 1.0).to(states)


@dataclass(frozen=True)
class FlowMatching:
    """Slopes of straight paths from noise to samples, met by the field at random times: no solve.

    A path is at `(1 - t) noise + t sample`, plus `sigma` times a normal number; its slope is `sample - noise`. Which
    noise a sample is paired with is decided by the `coupling`, see `coupled`.

    Source: Lipman et al. 2023 (arXiv 2210.02747), Tong et al. 2024 (arXiv 2302.00482).

    Raises:
        ValueError: a setting out of range.
    """

    coupling: str
    sigma: float

    def __post_init__(self) -> None:
        require_choice("coupling", self.coupling, COUPLINGS)
        require_at_least("sigma", self.sigma, 0)

    def __call__(
        self,
        model: DensityModel,
        states: Tensor,
        source: Tensor | None,
        labels: Tensor | None,
        generator: torch.Generator | None,
    ) -> Tensor:
        """The mean square over dimensions by which the field misses the slope of each path, `(n,)`.

        `source` are samples of the base, where that is no normal distribution; states and they are not yet scaled.
        """
        y = model.scaled(states)
        noise = normal(y, y.shape, generator) if source is None else model.scaled(source)
        kind = "conditional_ot" if self.coupling == "ot" and labels is not None else self.coupling
        noise = noise[coupled(noise, y, kind, labels)]
        count = len(y)
        t = (
            torch.arange(count, device=y.device) + uniform(y, (count,), generator)
        ) / count  # evenly, so it varies less
        t = t[torch.randperm(count, generator=generator).to(y.device)]
        at = t.view(-1, *(1,) * (y.dim() - 1))
        point = torch.lerp(noise, y, at)
        if self.sigma:
            point = point + self.sigma * normal(y, y.shape, generator)
        missed = model.velocity(t, point, labels) - (y - noise)
        return missed.flatten(1).square().mean(1)
