"""What every model of a density can be asked: a flow that carries a normal distribution to that of the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

# What may be integrated along the path of a sample, each a mean over its dimensions:
KINETIC = "kinetic"  # |f|^2
JACOBIAN = "jacobian"  # |df/dy|^2 (Frobenius); from probes, the estimate that they give
TOTAL_DERIVATIVE = "total_derivative"  # |df/dt + df/dy f|^2, along the path
INTEGRALS = (KINETIC, JACOBIAN, TOTAL_DERIVATIVE)


class LogDensity(NamedTuple):
    """The log-density of n samples, and what was found on the way to the base.

    Attributes:
        estimates: `(n, probes)`, in nats: one estimate of the log-density by each probe; `(n, 1)` if the trace is
            exact.
        base: `(n, ...)`, where the samples came from.
        integrals: those that were asked for, `(n,)` each, by name.
        nfe: evaluations of the vector field.
    """

    estimates: Tensor
    base: Tensor
    integrals: Mapping[str, Tensor]
    nfe: int


class DensityModel(nn.Module, ABC):
    """A vector field that carries a standard normal at t = 0 to the distribution of the data at t = 1.

    Samples are `(n, ...)` of one shape; `labels` are their classes `(n,)`, for a model that was built for a condition.
    """

    @abstractmethod
    def fit_scale(self, samples: Tensor) -> None:
        """Takes the mean and the std of each dimension from training data; the field works on what they scale."""

    @abstractmethod
    def scaled(self, samples: Tensor) -> Tensor:
        """The samples, scaled by them."""

    @abstractmethod
    def velocity(self, t: Tensor, y: Tensor, labels: Tensor | None = None) -> Tensor:
        """The slope at scaled states `y (n, ...)`, each at a time of its own, `t (n,)`."""

    @abstractmethod
    def log_density(
        self,
        samples: Tensor,
        probes: Tensor | None,
        labels: Tensor | None = None,
        integrals: Sequence[str] = (),
        start: float = 0.0,
    ) -> LogDensity:
        """The log-density of samples, solved back to the base at time `start`.

        `probes` `(probes, n, ...)` have mean 0 and covariance 1, and stay as they are within the solve: the trace of
        df/dy is estimated with them (Hutchinson). None: it is exact, at the cost of as many products as dimensions.

        Raises:
            SolveError: the solve failed.
        """

    @abstractmethod
    def carried(self, base: Tensor, labels: Tensor | None = None, num_times: int = 2) -> Tensor:
        """The paths `(times, n, ...)` from points of the base to samples: at `num_times` times in each ODE block.

        Raises:
            SolveError: the solve failed.
        """

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Evaluations of the vector field in the last solve from end to end."""
