"""A training step of the MNIST ODE-Net: state 64x6x6, dopri5 at rtol = atol = 1e-3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.engine.contender import Bare, Contender, Entry, Mode
from benchmarks.engine.networks import PeerNet, block_of, build_ours
from benchmarks.engine.peers import has_diffrax, is_installed, torchdiffeq_solve, torchode_solve
from benchmarks.engine.problems import NUM_BATCHES
from benchmarks.engine.solves import GRADIENTS
from node_cli.ode.compilation import MODES
from node_cli.training.evaluation import autocast

EXAMPLES = "its example's"
# torchdiffeq has nothing but the adjoint that saves memory.
PEERS = {g: Mode("torchdiffeq", "direct" if g == "direct" else "adjoint", network=EXAMPLES) for g in GRADIENTS}

Batch = tuple[Tensor, Tensor]


def entries(batch: int, device: str) -> Iterator[Entry]:
    """Ours start a solve with the step of the last one, as in training."""

    def entry(mode: Mode, build: Callable[[], nn.Module]) -> Entry:
        return mode, lambda: _contender(build().to(device), mode, batches(batch, device))

    for gradient in ("direct", "adjoint"):
        yield entry(PEERS[gradient], lambda g=gradient: PeerNet(build_ours(), torchdiffeq_solve(g)))
        yield entry(Mode("torchdiffeq", gradient), partial(build_ours, "solver=torchdiffeq", f"gradient={gradient}"))
        if is_installed("torchode"):
            mode = Mode("torchode", gradient, network=EXAMPLES)
            yield entry(mode, lambda g=gradient: PeerNet(build_ours(), torchode_solve(g)))
    if has_diffrax(device):
        yield Mode("diffrax", "checkpoint", "solve", network=EXAMPLES), partial(_diffrax, batch, "checkpoint")
    for compile, gradient in product(MODES, GRADIENTS):
        mode = Mode("ours", gradient, compile, "carried")
        yield entry(mode, partial(build_ours, f"gradient={gradient}", f"solver.compile={compile}"))
    for gradient in GRADIENTS:  # as few evaluations as reach the peer's error
        mode = Mode("ours", gradient, first_step="carried", solver_keys="bosh3 at 3e-3")
        keys = ("solver=bosh3", "solver.rtol=3e-3")  # and atol, which follows
        yield entry(mode, partial(build_ours, f"gradient={gradient}", *keys))
    for compile in MODES if device == "cuda" else ("none",):
        half = Mode("ours", "direct", compile, "carried", precision="bfloat16")
        yield entry(half, partial(build_ours, "gradient=direct", f"solver.compile={compile}"))


def batches(size: int, device: str) -> list[Batch]:
    """Noise of the shape of MNIST."""
    torch.manual_seed(1)
    drawn = [(torch.randn(size, 1, 28, 28), torch.randint(0, 10, (size,))) for _ in range(NUM_BATCHES)]
    return [(images.to(device), labels.to(device)) for images, labels in drawn]


def reference(batch: int, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    """In float64 at 1e-7, direct, by torchdiffeq: not by the code that is judged.

    A few samples at a time, or its 320 evaluations would take 12 GiB; no layer looks from one sample to another.
    """
    overrides = ("solver=torchdiffeq", "solver.rtol=1e-7", "solver.atol=1e-7", "gradient=direct")
    model = build_ours(*overrides).double().to(device)
    seen = _seen_by_the_head(model)
    for images, labels in zip(*(part.split(16) for part in batches(batch, device)[0]), strict=True):
        (F.cross_entropy(model(images.double()), labels, reduction="sum") / batch).backward()
    return torch.cat(seen), {name: p.grad for name, p in model.named_parameters()}


def _diffrax(batch: int, gradient: str) -> Contender:
    from benchmarks.engine import mnist_with_diffrax

    return mnist_with_diffrax.contender(
        PeerNet(build_ours(), torchdiffeq_solve("direct")), batches(batch, "cpu"), gradient
    )


def _seen_by_the_head(model: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    model.head.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    return seen


def _contender(model: nn.Module, mode: Mode, data: list[Batch]) -> Contender:
    def step(n: int) -> None:
        images, labels = data[n % NUM_BATCHES]
        model.zero_grad()
        with autocast(images.device, mode.precision):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()

    def count(n: int) -> tuple[int, int]:
        step(n)
        if isinstance(model, PeerNet):
            return model.nfe_forward, model.field.nfe - model.nfe_forward
        block = block_of(model)
        return block.stats.nfe, block.backward_stats.nfe

    def outcome() -> tuple[Tensor, dict[str, Tensor]]:
        seen = _seen_by_the_head(model)
        step(0)
        if isinstance(model, PeerNet):
            return seen[0], model.gradients()
        return seen[0], {name: p.grad for name, p in model.named_parameters()}

    field = model.field if isinstance(model, PeerNet) else block_of(model).vector_field
    return Contender(step, outcome, count, _bare(model, field, mode, data[0]))


def _bare(model: nn.Module, field: nn.Module, mode: Mode, batch: Batch) -> Bare:
    images, labels = batch
    y0 = model.stem(images).detach()
    cotangent = torch.randn_like(y0)
    t = torch.tensor(0.5, device=y0.device)

    def forward(_: int) -> None:
        with torch.no_grad(), autocast(y0.device, mode.precision):
            for _ in range(Bare.EVALUATIONS):
                field(t, y0)

    def both(_: int) -> None:
        y = y0.clone().requires_grad_()
        for _ in range(Bare.EVALUATIONS):
            with autocast(y0.device, mode.precision):
                dy = field(t, y).to(y.dtype)
            torch.autograd.grad(dy, (y, *field.parameters()), cotangent)

    def others(_: int) -> None:
        model.zero_grad()
        with autocast(y0.device, mode.precision):
            loss = F.cross_entropy(model.head(model.stem(images).float()), labels)
        loss.backward()

    return Bare(f"{mode.network} network, {mode.precision}", forward, both, others)
