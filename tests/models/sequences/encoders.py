"""Every encoder, and batches of irregular series for them."""

import torch
from parts import make_gradient, make_solver

from node_cli.models.sequences.cde import CdeEncoder
from node_cli.models.sequences.encoder import Encoder, RecurrentEncoder
from node_cli.models.sequences.gru_d import GruDEncoder
from node_cli.models.sequences.ode_rnn import OdeRnnCell, OdeRnnEncoder
from node_cli.series import MASK, TARGET, TIMES, VALUES

FIELD = {"width": 3, "hidden_width": 4, "num_hidden_layers": 1, "activation": "tanh"}
ENCODERS = ("recurrent", "gru_d", "ode_rnn", "cde hermite", "cde linear", "cde rectilinear")


def encoder(name, *, solver=("rk4", {}), gradient="direct", channels=2, dtype=torch.float64, **keys) -> Encoder:
    """The encoder of that name with weights from seed 0."""
    torch.manual_seed(0)
    solving = {"solver": make_solver(solver[0], **solver[1]), "gradient": make_gradient(gradient)}
    if name in ("recurrent", "gru_d"):
        made = {"recurrent": RecurrentEncoder, "gru_d": GruDEncoder}[name](num_channels=channels, width=3)
    elif name == "ode_rnn":
        made = OdeRnnEncoder(OdeRnnCell(num_channels=channels, **solving, **FIELD))
    else:
        settings = {"control": name.split()[1], "counts": False, "sees_path": True, **FIELD, **keys}
        made = CdeEncoder(num_channels=channels, **solving, **settings)
    return made.to(dtype)


def irregular(*lengths, channels=2, dtype=torch.float64):
    """Series of so many times, padded to the longest; some values are missing."""
    generator = torch.Generator().manual_seed(0)
    longest = max(lengths)
    times = torch.rand(len(lengths), longest, generator=generator, dtype=torch.float64).cumsum(1)
    rows = torch.arange(longest).expand(times.shape)
    last = torch.tensor(lengths)[:, None] - 1
    values = torch.randn(len(lengths), longest, channels, generator=generator, dtype=dtype)
    mask = (torch.rand(values.shape, generator=generator) > 0.3) & (rows <= last)[..., None]
    return {
        TIMES: times.gather(1, rows.minimum(last)),
        VALUES: values * mask,
        MASK: mask,
        TARGET: torch.zeros_like(mask),
    }


def picked(batch, samples, rows=slice(None)):
    """Some samples, and some of their times."""
    return {name: tensor[samples][:, rows] for name, tensor in batch.items()}
