"""The latent ODE: an encoder read backwards, a latent state that follows an ODE, a decoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from node_cli.batch import Batch
from node_cli.latent import LatentModel, Posterior
from node_cli.models.ode_stack import ode_block
from node_cli.models.sequences.cde import CdeEncoder
from node_cli.models.sequences.control import HERMITE
from node_cli.models.sequences.encoder import Encoder, RecurrentEncoder
from node_cli.models.sequences.ode_rnn import OdeRnnCell, OdeRnnEncoder
from node_cli.models.series.parts.networks import FieldNetwork, Hidden, network
from node_cli.ode.base import Solver
from node_cli.ode.checks import require, require_at_least, require_choice
from node_cli.ode.gradients import Gradient
from node_cli.series import MASK, TIMES, VALUES

SAME = 1e-9  # of the longest time: times as far apart as these are the same, but for rounding
LEAST_STD = 1e-4  # of a posterior, so that its logarithm is finite
ENCODERS = ("rnn", "ode_rnn", "cde")


class LatentOde(LatentModel):
    """Series `(n, T, C)` as what a decoder makes of solutions of dz/dt = f(z), from a latent state at their first time.

    The posterior of that is read off the memory of an encoder that went through all that was seen, backwards. Statics
    and controls are read by the encoder alone.

    Raises:
        ValueError: a key is out of range.

    Source: Chen et al. 2018, *Neural Ordinary Differential Equations*, NeurIPS, section 5; with `encoder=ode_rnn`
    Rubanova et al. 2019, *Latent ODEs for Irregularly-Sampled Time Series*, NeurIPS.
    """

    def __init__(
        self,
        *,
        num_channels: int,
        num_controls: int,
        num_statics: int,
        learns_rates: bool,
        solver: Solver,
        gradient: Gradient,
        encoder: str,
        encoder_width: int,
        latent_dim: int,
        width: int,
        num_hidden_layers: int,
        activation: str,
        decoder_width: int,
    ) -> None:
        super().__init__()
        require_at_least("latent_dim", latent_dim, 1)
        require_at_least("decoder_width", decoder_width, 0)
        require(num_controls == 0, "a dataset for model=latent_ode must have no controls", num_controls)
        self.latent_dim, self.learns_rates = latent_dim, learns_rates
        require_choice("encoder", encoder, ENCODERS)
        require_at_least("encoder_width", encoder_width, 1)
        hidden = Hidden(width, num_hidden_layers, activation)
        read = {"num_channels": num_channels, "num_inputs": num_statics, "width": encoder_width}
        self.encoder = _encoder(encoder, read, hidden, solver, gradient)
        self.head = nn.Linear(encoder_width + 1, 2 * latent_dim)
        field = FieldNetwork(latent_dim, 0, latent_dim, hidden, time_input=False)
        self.block = ode_block(field, solver, gradient, latent_dim, t0=0.0, t1=1.0, learn_times=False)
        self.decoder = self._readout(num_channels, decoder_width, activation)
        self.rates = self._readout(num_channels, decoder_width, activation) if learns_rates else None

    def posterior(self, batch: Batch) -> Posterior:
        """See `LatentModel.posterior`."""
        memory = self.encoder(batch, backwards=True)[:, -1]
        mean, spread = self.head(torch.cat([memory, _time_before(batch)], dim=1)).chunk(2, dim=1)
        return Posterior(mean, LEAST_STD + F.softplus(spread))

    def paths(self, latent: Tensor, batch: Batch) -> Tensor:
        """See `LatentModel.paths`; all are one solve."""
        times = batch[TIMES] - batch[TIMES][:, :1]
        if times.shape[1] == 1:
            return latent[:, :, None]
        count, start = len(latent), latent.flatten(0, 1)
        times = self.block.joined(times, SAME * float(times.abs().max()))
        ys: Tensor = self.block.solve(start, times if times.dim() == 1 else times.repeat(count, 1)).ys
        return ys.transpose(0, 1).reshape(*latent.shape[:2], -1, self.latent_dim)

    def values(self, paths: Tensor) -> Tensor:
        """See `LatentModel.values`."""
        values: Tensor = self.decoder(paths)
        return values

    def log_rates(self, paths: Tensor) -> Tensor:
        """See `LatentModel.log_rates`."""
        assert self.rates is not None, "the task learns no rates"
        rates: Tensor = self.rates(paths)
        return rates

    def _readout(self, num_channels: int, width: int, activation: str) -> nn.Module:
        if not width:
            return nn.Linear(self.latent_dim, num_channels)
        return network(self.latent_dim, num_channels, Hidden(width, 1, activation))


def _encoder(kind: str, read: dict[str, int], hidden: Hidden, solver: Solver, gradient: Gradient) -> Encoder:
    """That kind of encoder; where it solves, by a vector field of the size that the latent state's has."""
    if kind == "rnn":
        return RecurrentEncoder(**read)
    width, num_hidden_layers, activation = hidden
    solving: dict[str, Any] = {
        **read,
        "solver": solver,
        "gradient": gradient,
        "hidden_width": width,
        "num_hidden_layers": num_hidden_layers,
        "activation": activation,
    }
    if kind == "ode_rnn":
        return OdeRnnEncoder(OdeRnnCell(**solving))
    return CdeEncoder(**solving, control=HERMITE, counts=False, sees_path=True)


def _time_before(batch: Batch) -> Tensor:
    """The time `(n, 1)` from the first one of each series to that at which anything was seen, where reading ends."""
    times, first = batch[TIMES], batch[MASK].any(2).to(torch.uint8).argmax(1, keepdim=True)
    return (times.gather(1, first) - times[:, :1]).to(batch[VALUES].dtype)
