"""A continuous normalizing flow: a vector field between a normal distribution and that of the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from node_cli.flow import DensityModel, LogDensity
from node_cli.models.flows.along import Along, Conditioned
from node_cli.models.flows.networks import NETWORKS, make_network
from node_cli.models.ode_block import OdeBlock
from node_cli.models.requirements import choose, require_points
from node_cli.ode.base import Solver
from node_cli.ode.checks import require_at_least
from node_cli.ode.gradients import Gradient
from node_cli.ode.runge_kutta import RungeKutta


class Cnf(DensityModel):
    """ODE blocks in a row, each with its own vector field for its part of the time from 0 (base) to 1 (data).

    The log-density of a sample is that of where it came from, less the trace of df/dy integrated along its path (Chen
    et al. 2018, section 4; Grathwohl et al., FFJORD, ICLR 2019). Samples are scaled to mean 0 and std 1, dimension by
    dimension, which counts in the density.

    A `vector_field` of your own is called with the number of features of a point, once for each block; None: a
    `network` of `width` and `num_layers`, which say nothing else.

    Raises:
        ValueError: when a key is out of range, or does not go with the data.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        input_shape: tuple[int, ...],
        num_conditions: int,
        solver: Solver,
        gradient: Gradient,
        vector_field: Callable[[int], nn.Module] | None = None,
        network: str,
        width: int,
        num_layers: int,
        num_blocks: int,
    ) -> None:
        super().__init__()
        require_at_least("num_blocks", num_blocks, 1)
        if isinstance(vars(solver).get("atol"), list):
            raise ValueError("solver.atol must be one number: the state of a density has more than its channels")
        if vector_field is not None and num_conditions:
            raise ValueError("vector_field must be null with task.condition=label: it is not given the label")
        self.shape = tuple(input_shape)
        chosen = choose("network", network, NETWORKS)

        def field() -> nn.Module:
            if vector_field is not None:
                return vector_field(require_points(self.shape))
            return make_network(chosen, self.shape, width, num_layers, num_conditions)

        self.blocks = nn.ModuleList(
            OdeBlock(field(), solver, gradient, t0=k / num_blocks, t1=(k + 1) / num_blocks, learn_times=False)
            for k in range(num_blocks)
        )
        self.register_buffer("shift", torch.zeros(self.shape))
        self.register_buffer("scale", torch.ones(self.shape))
        self._fields: dict[tuple[int | str, ...], nn.Module] = {}  # that were compiled

    def fit_scale(self, samples: Tensor) -> None:
        """See `DensityModel.fit_scale`; a dimension without spread keeps its scale."""
        std, self.shift = torch.std_mean(samples, 0, correction=0)
        self.scale = torch.where(std > 0, std, 1.0)

    def scaled(self, samples: Tensor) -> Tensor:
        """See `DensityModel.scaled`."""
        scaled: Tensor = (samples - self.shift) / self.scale
        return scaled

    def velocity(self, t: Tensor, y: Tensor, labels: Tensor | None = None) -> Tensor:
        """See `DensityModel.velocity`."""
        places = (t * len(self.blocks)).long().clamp(0, len(self.blocks) - 1)
        t = t.view(-1, *(1,) * (y.dim() - 1))
        slopes = torch.zeros_like(y)
        for k, block in enumerate(self._blocks):
            chosen = (places == k).nonzero().squeeze(1)
            if len(chosen):
                field = Conditioned(block.vector_field, None if labels is None else labels[chosen])
                slopes = slopes.index_copy(0, chosen, field(t[chosen], y[chosen]).to(y.dtype))
        return slopes

    def log_density(
        self,
        samples: Tensor,
        probes: Tensor | None,
        labels: Tensor | None = None,
        integrals: Sequence[str] = (),
        start: float = 0.0,
    ) -> LogDensity:
        """See `DensityModel.log_density`; `start` must lie in the time of the first block."""
        num_probes = 1 if probes is None else len(probes)
        y = self.scaled(samples)
        dims = math.prod(self.shape)
        state = torch.cat([y.flatten(1), y.new_zeros(len(y), num_probes + len(integrals))], dim=1)
        for k in reversed(range(len(self.blocks))):
            block = self._blocks[k]
            ts = block.ts.flip(0)
            if k == 0 and start:
                ts = torch.stack([ts[0], ts.new_tensor(start)])
            field = Along(Conditioned(block.vector_field, labels), self.shape, probes, integrals)
            state = block.solve(state, ts, self._kept(k, field)).ys[-1]
        base = state[:, :dims]
        of_base = -0.5 * (base.square().sum(1) + dims * math.log(2 * math.pi))
        estimates = (of_base - self.scale.log().sum())[:, None] + state[:, dims : dims + num_probes]
        found = {name: -state[:, dims + num_probes + i] for i, name in enumerate(integrals)}  # solved backwards
        return LogDensity(estimates, base.view(samples.shape), found, self.nfe)

    def carried(self, base: Tensor, labels: Tensor | None = None, num_times: int = 2) -> Tensor:
        """See `DensityModel.carried`."""
        y, paths = base, [base[None]]
        for k, block in enumerate(self._blocks):
            ts = torch.lerp(block.ts[0], block.ts[1], torch.linspace(0, 1, num_times).to(block.ts))
            ys = block.solve(y, ts, self._kept(k, Conditioned(block.vector_field, labels))).ys
            y = ys[-1]
            paths.append(ys[1:])
        carried: Tensor = torch.cat(paths) * self.scale + self.shift
        return carried

    @property
    def nfe(self) -> int:
        """See `DensityModel.nfe`."""
        return sum(block.stats.nfe for block in self._blocks)

    @property
    def _blocks(self) -> list[OdeBlock]:
        return [block for block in self.blocks if isinstance(block, OdeBlock)]

    def _kept(self, k: int, field: Conditioned | Along) -> nn.Module:
        """The field; or, where a solver compiles, the one that was compiled for such a solve, with the new tensors."""
        solver = self._blocks[k].solver
        if not (isinstance(solver, RungeKutta) and solver.is_compiled):
            return field
        kept = self._fields.setdefault((k, type(field).__name__, *field.names), field)
        for name, tensor in field.tensors().items():
            setattr(kept.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], tensor)
        return kept
