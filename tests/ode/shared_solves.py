"""Solves and gradients of a batch that may be shared among processes, and the process that makes them all."""

import os
import sys
from dataclasses import dataclass, field, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from parts import make_gradient, make_solver
from problems import Wave, times
from torch import nn

from node_cli.ode import SolveError
from node_cli.ode.functional import solve
from node_cli.ode.solution import FirstSteps

SHARES = (slice(0, 5), slice(5, 8))
WHOLE = slice(0, 8)
TIMES = (0.0, 0.6, 0.9, 1.5)


@dataclass(frozen=True)
class Case:
    """A few solves in a row; each is handed the first steps of the one before."""

    method: str = "dopri5"
    dtype: torch.dtype = torch.float64
    gradient: str = "direct"
    adjoint_norm: str = "full"
    vector_field: str = "wave"
    damage: str = "none"
    num_solves: int = 1
    own_times: bool = False
    keys: dict = field(default_factory=dict)  # of the solver

    @property
    def solver(self):
        keys = {"rtol": 1e-5, "atol": 1e-5, "sync_steps": True, "first_step": "chosen", **self.keys}
        return make_solver(self.method, **keys)


DOUBLE = {
    "interpolated": Case(),
    "rejected": Case(keys={"first_step": 1.5}),
    "max": Case(keys={"norm": "max"}),
    "third order": Case("bosh3", gradient="checkpoint"),
    "stepped onto": Case("dopri8", keys={"outputs": "step", "first_step": 0.3}),
    "carried": Case(num_solves=3, keys={"first_step": "carried"}),
    "PID": Case("tsit5", keys={"pcoeff": 0.3, "icoeff": 0.4}),
    "checkpoint": Case(gradient="checkpoint"),
    "adjoint full": Case(gradient="adjoint"),
    "adjoint semi": Case(gradient="adjoint", adjoint_norm="semi"),
    "adjoint max": Case(gradient="adjoint", keys={"norm": "max"}),
    "adjoint carried": Case("bosh3", gradient="adjoint", num_solves=3, keys={"first_step": "carried"}),
    "adjoint without inputs": Case(gradient="adjoint", vector_field="sine"),
    "of each sample, checkpoint": Case(gradient="checkpoint", vector_field="driven"),
    "of each sample, semi": Case(gradient="adjoint", adjoint_norm="semi", vector_field="driven"),
    "own times": Case(own_times=True, num_solves=2, keys={"first_step": "carried"}),
    "own times, stepped onto": Case("dopri8", own_times=True, keys={"outputs": "step"}),
    "own times, adjoint": Case(own_times=True, gradient="adjoint"),
}
# An error estimate is a small difference of great numbers, so in float32 steps are not the same at tight tolerances.
SINGLE = {
    f"{name}, float32": replace(
        DOUBLE[name], dtype=torch.float32, keys={"rtol": 1e-3, "atol": 1e-3, **DOUBLE[name].keys}
    )
    for name in ("interpolated", "max", "third order", "carried", "checkpoint", "adjoint full", "adjoint semi")
}
ALONE = {
    f"{name}, alone": replace(DOUBLE[name], keys=DOUBLE[name].keys | {"sync_steps": False})
    for name in ("interpolated", "max", "adjoint full", "adjoint semi")
}
FAILING = {
    f"{name}, {norm}": replace(case, keys=case.keys | {"norm": norm})
    for norm in ("rms", "max")
    for name, case in {
        "a state from the start": Case(damage="state"),
        "a state from the start, first step given": Case(damage="state", keys={"first_step": 0.1}),
        "a slope": Case(vector_field="broken"),
        "a state that explodes": Case(vector_field="square", damage="explosion"),
        "too many evaluations": Case(keys={"max_nfe": 20}),
        "too many attempts": Case(keys={"max_steps": 3}),
        "a gradient, full": Case(gradient="adjoint", damage="gradient"),
        "a gradient, semi": Case(gradient="adjoint", adjoint_norm="semi", damage="gradient"),
    }.items()
}
FAILING_AT_OWN_TIMES = {
    "own times, a slope": Case(vector_field="broken", own_times=True),
    "own times, a pole": Case(vector_field="square", damage="explosion", own_times=True),
}
REFUSED = {
    "of each sample, full": Case(gradient="adjoint", vector_field="driven"),
    "changed": Case(gradient="adjoint", damage="field"),
}
CASES = DOUBLE | SINGLE | ALONE | FAILING | FAILING_AT_OWN_TIMES | REFUSED


class Driven(nn.Module):
    """Uses a tensor that was computed from a parameter, a row for each sample."""

    def __init__(self, dtype, drive):
        super().__init__()
        self.wave = Wave(dtype=dtype)
        self.weight = nn.Parameter(torch.full((3,), 0.7, dtype=dtype))
        self.force = drive * self.weight

    def forward(self, t, y):
        return self.wave(t, y) + self.force


class Sine(nn.Module):
    def forward(self, t, y):
        return y.sin()


class Square(nn.Module):
    def forward(self, t, y):
        return y**2


class Broken(nn.Module):
    """No number for great states, late."""

    def forward(self, t, y):
        return y + torch.where((t > 0.5) & (y > 4), torch.nan, 0.0)


def make_field(case, share):
    if case.vector_field == "driven":
        return Driven(case.dtype, torch.linspace(-1, 1, 24, dtype=case.dtype).view(8, 3)[share])
    if case.vector_field == "wave":
        return Wave(dtype=case.dtype)
    return {"sine": Sine, "square": Square, "broken": Broken}[case.vector_field]()


def batch(case, number, share):
    """The states of one share; the samples of the second one are the harder ones."""
    y0 = torch.linspace(-1, 1, 24, dtype=case.dtype).mul(7 + number).sin().view(8, 3) / 2
    y0[5:] *= 4
    if case.damage == "state":
        y0[6, 1] = torch.nan
    if case.damage == "explosion":
        y0[6, 1] = 3.0
    return y0[share].clone().requires_grad_()


def loss_of(case, ys, share):
    """The mean over the samples of the share, times its part of all samples."""
    weights = torch.linspace(-1, 2, ys[:, :1].numel(), dtype=ys.dtype).view_as(ys[:, :1]).sin()
    losses = (weights * (ys.sin() + ys**2 / 9)).sum((0, 2))
    if case.damage == "gradient" and share != SHARES[0]:
        losses = losses * torch.nan
    return losses.mean() * ys.shape[1] / 8


def run(case, share):
    """States, gradients and costs of all solves of a case, or why there are none."""
    vector_field, ts = make_field(case, share), times(*TIMES, requires_grad=True)
    asked = ts
    if case.own_times:  # the samples of the first share are the first to arrive, and go through fewer times
        ts = (times(*TIMES) * torch.linspace(0.4, 1, 8, dtype=torch.float64)[:, None] + 0.1).requires_grad_()
        asked = torch.cat([torch.cat([ts[:5, :3], ts[:5, 2:3]], 1), ts[5:]])[share]
    keys = {"norm": case.adjoint_norm} if case.gradient == "adjoint" else {}
    gradient, solver, first_steps = make_gradient(case.gradient, **keys), case.solver, FirstSteps()
    result = {"ys": [], "y0": [], "first_steps": [], "stats": [], "backward_stats": []}
    try:
        for number in range(case.num_solves):
            y0 = batch(case, number, share)
            solution = gradient.solve(solver, vector_field, y0, asked, first_steps)
            if case.damage == "field" and share != SHARES[0]:
                next(vector_field.parameters()).data.mul_(2)
            loss_of(case, solution.ys, share).backward()
            result["ys"].append(solution.ys.detach())
            result["y0"].append(y0.grad)
            result["first_steps"].append((first_steps.forward, first_steps.backward))
            result["stats"].append(vars(solution.stats))
            result["backward_stats"].append(vars(solution.backward_stats))
    except (SolveError, ValueError) as error:
        return result | {"error": f"{type(error).__name__}: {error}"}
    grads = {name: parameter.grad for name, parameter in vector_field.named_parameters()}
    return result | {"sums": grads | {"ts": ts.grad}}


def run_tuple(share, **keys):
    """A state of two parts through `solve`."""
    y0 = batch(Case(), 0, share).detach()
    solution = solve(lambda t, y: (y[1][:, 0], -y[0][:, None] * y[1]), (y0[:, 0], y0[:, 1:]), times(0, 1), **keys)
    return {"ys": solution.ys, "step_sizes": solution.stats.step_sizes}


def main():
    """One of two processes, for `forked.Command`: runs every case on its share and leaves `<rank>.pt` where it is."""
    rank, folder = int(sys.argv[1]), os.getcwd()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.set_num_threads(1)
    init_method, timeout = f"file://{folder}/store", timedelta(seconds=600)
    dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=2, timeout=timeout)
    all_reduce, seen = dist.all_reduce, []

    def counted(tensor, *args, **kwargs):
        seen.append(tensor.numel())
        return all_reduce(tensor, *args, **kwargs)

    dist.all_reduce = counted
    results = {}
    for name, case in CASES.items():
        seen.clear()
        results[name] = run(case, SHARES[rank]) | {"reduced": list(seen)}
    results["tuple"] = run_tuple(SHARES[rank], sync_steps=True)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
