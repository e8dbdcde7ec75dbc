"""A training step of the MNIST ODE-Net: batch 128, state 64x6x6, dopri5 at rtol = atol = 1e-3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.engine.measure import (
    Step,
    gradient_errors,
    in_turn,
    machine,
    percent,
    relative_error,
    seconds,
    spread,
    table,
    times,
)
from benchmarks.engine.networks import PeerNet, block_of, build_ours
from benchmarks.engine.peers import is_installed, torchdiffeq_solve, torchode_solve
from node_cli.ode.solvers import Adaptive
from node_cli.training.evaluation import autocast

BATCH, NUM_BATCHES, THREADS = 128, 4, 2
EVALUATIONS = 8  # in a row, where a bare evaluation is timed

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Contender:
    """A network under a solver, differentiated in one way."""

    solver: str
    network: str
    gradient: str
    model: nn.Module
    precision: str = "float32"

    @property
    def name(self) -> str:
        return f"{self.solver}, {self.network} network, {self.gradient}, {self.precision}"

    @property
    def field(self) -> nn.Module:
        return self.model.field if isinstance(self.model, PeerNet) else block_of(self.model).vector_field

    def train(self, batch: Batch) -> tuple[int, int]:
        """Gradients in place of the old ones; returns evaluations forward and backward."""
        images, labels = batch
        self.model.zero_grad()
        with autocast(images.device, self.precision):
            loss = F.cross_entropy(self.model(images), labels)
        loss.backward()
        if isinstance(self.model, PeerNet):
            return self.model.nfe_forward, self.model.field.nfe - self.model.nfe_forward
        block = block_of(self.model)
        return block.stats.nfe, block.backward_stats.nfe

    def solution_and_gradients(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What the head is given, and the gradients by our network's names."""
        seen: list[Tensor] = []
        hook = self.model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
        self.train(batch)
        hook.remove()
        if isinstance(self.model, PeerNet):
            return seen[0], self.model.gradients()
        return seen[0], {name: p.grad for name, p in self.model.named_parameters()}


def run(rounds: int, device: str = "cpu") -> dict[str, Any]:
    """All figures of this case."""
    torch.set_num_threads(THREADS)
    contenders = [*_contenders(device)]
    torch.manual_seed(1)
    batches = [_batch(device) for _ in range(NUM_BATCHES)]
    # Other data in each round: a first step that is carried over comes from another batch, as in training.
    steps: dict[str, Step] = {c.name: lambda n, c=c: c.train(batches[n % NUM_BATCHES]) for c in contenders}
    for contender in contenders:
        steps |= _bare_steps(contender, batches[0])
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    seconds_of, evaluations = in_turn(steps, rounds, wait=wait)
    solution, gradients = _reference(device, batches[0])
    rows = []
    for contender in contenders:
        own, counts = seconds_of[contender.name], np.array(evaluations[contender.name])
        limit = _limit(contender, counts, seconds_of)
        y1, grads = contender.solution_and_gradients(batches[0])
        peer = seconds_of[_peer_name(contender.gradient)]
        rows.append(
            {
                "solver": contender.solver,
                "network": contender.network,
                "gradient": contender.gradient,
                "precision": contender.precision,
                "seconds": spread(own),
                "times_peer": spread(peer / own),
                "nfe_forward": float(np.median(counts[:, 0])),
                "nfe_backward": float(np.median(counts[:, 1])),
                "limit_seconds": spread(limit),
                "over_limit": spread(own / limit),
                "solution_error": relative_error(y1, solution),
                **gradient_errors(grads, gradients),
            }
        )
    return {"machine": machine(device), "rounds": rounds, "rows": rows}


def markdown(result: dict[str, Any]) -> str:
    """The table."""
    header = ["solver", "network", "gradient", "s (quartiles)", "times torchdiffeq", "evaluations"]
    header += ["limit, s", "time / limit", "solution error", "gradient error", "worst parameter"]
    rows = [
        [
            row["solver"],
            row["network"],
            row["gradient"] + ("" if row["precision"] == "float32" else f", {row['precision']}"),
            seconds(row["seconds"]),
            times(row["times_peer"]),
            f"{row['nfe_forward']:.0f} + {row['nfe_backward']:.0f}",
            f"{row['limit_seconds']['median']:.3g}",
            f"{row['over_limit']['median']:.2f}",
            *(percent(row[key]) for key in ("solution_error", "gradient_error", "worst_error")),
        ]
        for row in result["rows"]
    ]
    notes = "" if is_installed("torchode") else "\n\ntorchode: not installed"
    return table(header, rows) + notes


def _contenders(device: str) -> Iterator[Contender]:
    for gradient in ("direct", "adjoint"):
        example = PeerNet(build_ours().to(device), torchdiffeq_solve(gradient))
        yield Contender("torchdiffeq", "example's", gradient, example)
        ours = build_ours("solver=torchdiffeq", f"gradient={gradient}").to(device)
        yield Contender("torchdiffeq", "our", gradient, ours)
        if is_installed("torchode"):
            yield Contender(
                "torchode", "example's", gradient, PeerNet(build_ours().to(device), torchode_solve(gradient))
            )
    for gradient in ("direct", "checkpoint", "adjoint"):
        yield Contender("ours", "our", gradient, build_ours(f"gradient={gradient}").to(device))
    yield Contender("ours", "our", "direct", build_ours("gradient=direct").to(device), "bfloat16")
    if device == "cuda" and "compile" in Adaptive.__dataclass_fields__:
        compiled = build_ours("gradient=direct", "solver.compile=step").to(device)
        yield Contender("ours, compile=step", "our", "direct", compiled)


def _peer_name(gradient: str) -> str:
    """Whom a gradient is held against: torchdiffeq has nothing but the adjoint that saves memory."""
    return f"torchdiffeq, example's network, {'direct' if gradient == 'direct' else 'adjoint'}, float32"


def _batch(device: str) -> Batch:
    return torch.randn(BATCH, 1, 28, 28, device=device), torch.randint(0, 10, (BATCH,), device=device)


def _reference(device: str, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """In float64 at 1e-7, direct, by torchdiffeq: not by the code that is judged.

    A few samples at a time, or its 320 evaluations would take 12 GiB; no layer looks from one sample to another.
    """
    overrides = ("solver=torchdiffeq", "solver.rtol=1e-7", "solver.atol=1e-7", "gradient=direct")
    model = build_ours(*overrides).double().to(device)
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    for images, labels in zip(*(part.split(16) for part in batch), strict=True):
        (F.cross_entropy(model(images.double()), labels, reduction="sum") / len(batch[1])).backward()
    return torch.cat(seen), {name: p.grad for name, p in model.named_parameters()}


def _bare_steps(contender: Contender, batch: Batch) -> dict[str, Step]:
    """Evaluations of the vector field, and stem with head, with nothing around them."""
    images, labels = batch
    model, field, precision = contender.model, contender.field, contender.precision
    y0 = model.stem(images).detach()
    cotangent = torch.randn_like(y0)
    t = torch.tensor(0.5, device=y0.device)

    def forward(_: int) -> None:
        with torch.no_grad(), autocast(y0.device, precision):
            for _ in range(EVALUATIONS):
                field(t, y0)

    def forward_and_backward(_: int) -> None:
        y = y0.clone().requires_grad_()
        for _ in range(EVALUATIONS):
            with autocast(y0.device, precision):
                dy = field(t, y).to(y.dtype)
            torch.autograd.grad(dy, (y, *field.parameters()), cotangent)

    def stem_and_head(_: int) -> None:
        model.zero_grad()
        with autocast(y0.device, precision):
            loss = F.cross_entropy(model.head(model.stem(images).float()), labels)
        loss.backward()

    forward_key, both_key, ends_key = _bare_keys(contender)
    return {forward_key: forward, both_key: forward_and_backward, ends_key: stem_and_head}


def _bare_keys(contender: Contender) -> tuple[str, str, str]:
    """The same for all contenders with the same network."""
    network = f"{contender.network} {contender.precision}"
    return f"{network} forward", f"{network} forward and backward", f"{network} stem and head"


def _limit(contender: Contender, counts: np.ndarray, seconds_of: dict[str, np.ndarray]) -> np.ndarray:
    """Seconds of the evaluations that a step made, and of stem and head, in each round.

    An evaluation that backpropagation goes through costs its backward pass too; where backward solves make evaluations
    of their own, those are the ones.
    """
    forward, both, ends = (seconds_of[key] for key in _bare_keys(contender))
    forward, both = forward / EVALUATIONS, both / EVALUATIONS
    if contender.gradient == "direct":
        return counts[:, 0] * both + ends
    return counts[:, 0] * forward + counts[:, 1] * both + ends
