"""All cases by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from benchmarks.engine import cnf, mnist, own_times, problems, solves
from benchmarks.engine.contender import Case
from benchmarks.engine.networks import TOLERANCE
from benchmarks.engine.problems import Problem


def _small(title: str, make: Callable[[int], Problem], batch: int, device: str = "cpu") -> Case:
    made = cache(lambda batch: make(batch).to(device))
    return Case(
        title=f"{title}, training step{_where(device)}",
        threads=1,
        batch=batch,
        tolerance=problems.TOLERANCES[make.__name__],
        unit="ms",
        entries=lambda batch: solves.entries(made(batch)),
        reference=lambda batch: made(batch).reference(),
        peers=solves.TORCHDIFFEQ,
        peer="torchdiffeq",
        device=device,
    )


def _own_times(method: str) -> Case:
    return Case(
        title=f"series with times of their own, {method}, solve and gradient",
        threads=1,
        batch=64,
        tolerance=own_times.TOLERANCE if method == "dopri5" else None,
        unit="ms",
        entries=partial(own_times.entries, method),
        reference=own_times.reference,
        peers=own_times.PEERS,
        peer=own_times.ALONE,
    )


def _where(device: str) -> str:
    return " on a GPU" if device == "cuda" else ""


def _mnist(device: str) -> Case:
    return Case(
        title=f"MNIST ODE-Net, training step{_where(device)}",
        threads=2,
        batch=128,
        tolerance=TOLERANCE,
        unit="s",
        entries=lambda batch: mnist.entries(batch, device),
        reference=lambda batch: mnist.reference(batch, device),
        peers=mnist.PEERS,
        peer="torchdiffeq",
        device=device,
    )


SMALL: dict[str, tuple[str, Callable[[int], Problem], int]] = {
    "spiral": ("spiral (state 2, MLP 2-50-2, 10 times)", problems.spiral, 20),
    "lotka_volterra": ("Lotka-Volterra (state 2, MLP 2-64-64-2, 50 times)", problems.lotka_volterra, 64),
    "ffjord": ("FFJORD 2-D (MLP 3-64-64-2, exact trace)", problems.ffjord, 512),
}
CASES = {
    **{name: _small(*small) for name, small in SMALL.items()},
    **{f"{name}_gpu": _small(*small, "cuda") for name, small in SMALL.items()},
    "cnf": Case(
        title="CNF of torchdiffeq's example, likelihood step (time 10 to 0, exact trace)",
        threads=1,
        batch=512,
        tolerance=problems.TOLERANCES["cnf"],
        unit="ms",
        entries=cnf.entries,
        reference=lambda batch: cnf.cnf(batch).reference(),
        peers=cnf.PEERS,
        peer="torchdiffeq",
    ),
    "mnist": _mnist("cpu"),
    "mnist_gpu": _mnist("cuda"),
    "own_times": _own_times("dopri5"),
    "own_times_rk4": _own_times("rk4"),
}
