"""One likelihood step of a flow beside torchdiffeq's way: seconds in turn, and gradients against float64.

    python benchmarks/ffjord.py [--repeats 5] [--batch 512] [--rtol 1e-5]

The network is that of torchdiffeq's `examples/cnf.py`: a hypernetwork of width 64, with 32 hidden units, in two
dimensions, with the exact trace. Theirs solves a tuple (z, log p) by `odeint_adjoint`, as its example and FFJORD do, or
by `odeint`, with a loop over dimensions for the trace.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torchdiffeq
from torch import Tensor, nn

from node_cli.models.cnf import Cnf
from node_cli.ode.arguments import solver_of
from node_cli.ode.base import Solver
from node_cli.ode.gradients.adjoint import Adjoint
from node_cli.ode.gradients.checkpoint import Checkpoint
from node_cli.ode.gradients.direct import Direct

DIMS, HIDDEN, WIDTH = 2, 32, 64


class HyperField(nn.Module):
    """The vector field of the example: a sum of `WIDTH` neurons whose weights depend on the time."""

    def __init__(self) -> None:
        super().__init__()
        hidden = (nn.Linear(1, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh())
        self.layers = nn.Sequential(*hidden, nn.Linear(HIDDEN, 3 * WIDTH * DIMS + WIDTH))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt at 0-dim `t`, of the shape of `y (batch, 2)`."""
        found = self.layers(t.to(y.dtype).reshape(1, 1)).reshape(-1)
        weight, inner, gate, bias = found.split([WIDTH * DIMS, WIDTH * DIMS, WIDTH * DIMS, WIDTH])
        outer = inner * gate.sigmoid()
        hidden = torch.tanh(y @ weight.view(WIDTH, DIMS).T + bias)
        return hidden @ outer.view(WIDTH, DIMS) / WIDTH


class Theirs(nn.Module):
    """The vector field with its trace by a loop over dimensions, for a tuple state."""

    def __init__(self, field: HyperField) -> None:
        super().__init__()
        self.field = field
        self.nfe = 0

    def forward(self, t: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The slopes of z and of log p."""
        self.nfe += 1
        z = states[0]
        with torch.enable_grad():
            z.requires_grad_(True)
            dz = self.field(t, z)
            trace = sum(torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i] for i in range(DIMS))
        return dz, -trace.view(-1, 1)


def by_torchdiffeq(field: HyperField, x: Tensor, rtol: float, odeint: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
    """The mean negative log-likelihood."""
    theirs, ts = Theirs(field), torch.tensor([1.0, 0.0]).to(x)
    z, log_p = odeint(theirs, (x, torch.zeros(len(x), 1).to(x)), ts, rtol=rtol, atol=rtol, method="dopri5")
    of_base = torch.distributions.Normal(0.0, 1.0).log_prob(z[-1]).sum(1)
    return -(of_base - log_p[-1].view(-1)).mean()


def ours(field: HyperField, solver: Solver, gradient: object) -> Cnf:
    """The flow around the same vector field."""
    keys = {"network": "mlp", "width": 1, "num_layers": 1, "num_blocks": 1, "num_conditions": 0}
    return Cnf(input_shape=(DIMS,), solver=solver, gradient=gradient, vector_field=lambda _: field, **keys)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind, default in (("repeats", int, 5), ("batch", int, 512), ("rtol", float, 1e-5), ("threads", int, 1)):
        parser.add_argument(f"--{name}", type=kind, default=default)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    field = HyperField()
    angles = 2 * torch.pi * torch.rand(asked.batch)
    x = torch.stack([angles.cos(), angles.sin()], 1) + 0.05 * torch.randn(asked.batch, DIMS)
    fields = {"reference": copy.deepcopy(field).double()}
    tight = ours(fields["reference"], solver_of("dopri5", 1e-10, 1e-10, {})[0], Direct()).double()
    (-tight.log_density(x.double(), None).estimates.mean()).backward()
    reference = gradient_of(fields["reference"])

    steps: dict[str, Callable[[], Tensor]] = {}
    for name, odeint in {"odeint_adjoint": torchdiffeq.odeint_adjoint, "odeint": torchdiffeq.odeint}.items():
        own = fields[f"torchdiffeq {name}"] = copy.deepcopy(field)
        steps[f"torchdiffeq {name}"] = lambda own=own, odeint=odeint: by_torchdiffeq(own, x, asked.rtol, odeint)
    checkpoint = Checkpoint(max_checkpoints=None)
    for name, gradient, options in (
        ("checkpoint", checkpoint, {}),
        ("adjoint", Adjoint(rtol=None, atol=None, norm="full"), {}),
        ("checkpoint compile=step", checkpoint, {"compile": "step"}),
        ("checkpoint compile=solve", checkpoint, {"compile": "solve"}),
    ):
        own = fields[f"node-cli {name}"] = copy.deepcopy(field)
        flow = ours(own, solver_of("dopri5", asked.rtol, asked.rtol, options)[0], gradient)
        steps[f"node-cli {name}"] = lambda flow=flow: -flow.log_density(x, None).estimates.mean()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(asked.repeats + 1):  # the first one compiles
        for name, step in steps.items():
            fields[name].zero_grad()
            started = time.perf_counter()
            step().backward()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    first = statistics.median(seconds["torchdiffeq odeint_adjoint"])
    print("| step | ms | times as fast | gradient off |\n|---|---|---|---|")
    for name, found in seconds.items():
        off = ((gradient_of(fields[name]).double() - reference).norm() / reference.norm()).item()
        median = statistics.median(found)
        print(f"| {name} | {1000 * median:.0f} | {first / median:.2f} | {off:.1e} |")


def gradient_of(field: nn.Module) -> Tensor:
    """All parameters in a row."""
    return torch.cat([parameter.grad.flatten() for parameter in field.parameters() if parameter.grad is not None])


if __name__ == "__main__":
    main()
