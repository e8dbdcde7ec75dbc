"""Evaluations against errors: adaptive methods at many tolerances, on vector fields of this tool's tasks.

    python -m benchmarks.work_precision [--run outputs/...] [--save]

Printed are, of a training step with `gradient=direct`, the evaluations of a solve whose first step is carried over,
those of one whose first step is chosen, and the relative errors of the solution and of the gradient of all parameters
of the vector field, against float64 at 1e-7 by dopri5. Counts, so no quiet machine is needed. `--run` adds the trained
ODE block of a run on digits; `--save` writes `results/work_precision.json`.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.engine.measure import machine, percent, relative_error, table
from node_cli import load_run
from node_cli.config import config_dir
from node_cli.datasets.digits import digits
from node_cli.models.ode_block import ode_blocks
from node_cli.models.series.parts.networks import Hidden, network
from node_cli.ode.base import VectorField
from node_cli.ode.gradients.checkpoint import Checkpoint
from node_cli.ode.gradients.direct import Direct
from node_cli.ode.solution import FirstSteps
from node_cli.ode.solvers import Adaptive

RESULTS = Path(__file__).with_name("results") / "work_precision.json"
METHODS = ("adaptive_heun", "bosh3", "dopri5", "tsit5")
TOLERANCES = (1e-2, 5e-3, 3e-3, 2e-3, 1.4e-3, 1e-3, 3e-4, 1e-4)
SAMPLES = 32  # of images and trajectories
ROUNDS = 5  # solves after which a first step that is carried over has settled


@dataclass(frozen=True)
class Case:
    """A vector field, where a solve starts, the times that it is asked for, and the loss of the states there."""

    name: str
    vector_field: nn.Module
    y0: Tensor
    ts: Tensor
    loss: Callable[[Tensor], Tensor]

    def differentiated(self, solve: Callable[[VectorField[Tensor]], Tensor]) -> tuple[Tensor, Tensor]:
        """The states that `solve` returns, and the gradient of all parameters in one row."""
        self.vector_field.zero_grad()
        ys = solve(self.vector_field)
        self.loss(ys).backward()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.vector_field.parameters()]
        return ys.detach(), torch.cat([grad.flatten() for grad in grads])


class Perceptron(nn.Module):
    """A vector field in the plane, as that of `model=neural_ode`; with `time_input`, as a flow has it."""

    def __init__(self, num_hidden_layers: int, *, time_input: bool) -> None:
        super().__init__()
        self.time_input = time_input
        self.layers = network(2 + time_input, 2, Hidden(64, num_hidden_layers, "tanh"))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt at 0-dim `t`, for states `(batch, 2)`."""
        dy: Tensor = self.layers(torch.cat([y, t.expand(len(y), 1)], 1) if self.time_input else y)
        return dy


def cases(run: str | None) -> Iterator[Case]:
    """The problems, with the same weights and states each time."""
    interval, generator = torch.tensor([0.0, 1.0], dtype=torch.float64), torch.Generator().manual_seed(0)

    def states(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    def of_images(name: str, model: nn.Module, images: Tensor) -> Case:
        (block,) = ode_blocks(model).values()
        with torch.no_grad():
            y0 = model.stem(images)
        labels = torch.arange(len(images)) % 10
        head = copy.deepcopy(model.head)
        return Case(name, block.vector_field, y0, interval, lambda ys: F.cross_entropy(head.to(ys)(ys[-1]), labels))

    yield of_images("MNIST ODE-Net, untrained", _odenet((1, 28, 28)), states(SAMPLES, 1, 28, 28))
    images = digits(0, 0.2, 0.2, 0, False, True).splits["val"]["inputs"][:SAMPLES]
    yield of_images("digits ODE-Net, untrained", _odenet((1, 8, 8)), images)
    if run is not None:
        yield of_images("digits ODE-Net, trained", load_run(run).model.train(), images)
    ts = torch.linspace(0, 4, 20, dtype=torch.float64)
    torch.manual_seed(0)
    trajectory, flow = Perceptron(2, time_input=False), Perceptron(3, time_input=True)
    with torch.no_grad():
        for field in (trajectory, flow):
            for parameter in field.parameters():
                parameter.mul_(2)
    yield Case("trajectories, 20 times", trajectory, states(SAMPLES, 2), ts, lambda ys: ys.square().mean())
    yield Case("flow in the plane", flow, states(512, 2), interval, lambda ys: ys[-1].square().mean())


def _odenet(input_shape: tuple[int, ...]) -> nn.Module:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", ["model=odenet"])
    torch.manual_seed(0)
    parts = {group: instantiate(cfg[group], _convert_="all") for group in ("solver", "gradient")}
    model: nn.Module = instantiate(cfg.model)(input_shape=input_shape, num_outputs=10, **parts)
    return model


def solver_of(method: str, tolerance: float) -> Adaptive:
    """As the YAML files have it."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("train", [f"solver={method}", f"solver.rtol={tolerance}", "solver.max_nfe=null"])
    solver: Adaptive = instantiate(cfg.solver, _convert_="all")
    return solver


def measured(case: Case, exact: tuple[Tensor, Tensor], method: str, tolerance: float) -> dict[str, Any]:
    """One row of the table."""
    solver, first_steps, chosen = solver_of(method, tolerance), FirstSteps(), 0
    for n in range(ROUNDS):
        found: list[Any] = []

        def solve(field: VectorField[Tensor], found: list[Any] = found) -> Tensor:
            found.append(Direct().solve(solver, field, case.y0, case.ts, first_steps))
            ys: Tensor = found[0].ys
            return ys

        ys, grad = case.differentiated(solve)
        stats = found[0].stats
        chosen = stats.nfe if n == 0 else chosen
    return {
        "case": case.name,
        "method": method,
        "tolerance": tolerance,
        "nfe": stats.nfe,
        "rejected": stats.num_rejected,
        "nfe_chosen": chosen,
        **_errors(ys, grad, exact),
    }


def by_torchdiffeq(case: Case, exact: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """What dopri5 at 1e-3 costs there."""
    calls = 0

    def solve(field: VectorField[Tensor]) -> Tensor:
        def counted(t: Tensor, y: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return field(t, y)

        states: Tensor = torchdiffeq.odeint(counted, case.y0, case.ts.float(), rtol=1e-3, atol=1e-3)
        return states

    ys, grad = case.differentiated(solve)
    cost = {"nfe": calls, "rejected": None, "nfe_chosen": calls}
    return {"case": case.name, "method": "torchdiffeq dopri5", "tolerance": 1e-3, **cost, **_errors(ys, grad, exact)}


def _errors(ys: Tensor, grad: Tensor, exact: tuple[Tensor, Tensor]) -> dict[str, float]:
    return {
        "solution_error": relative_error(ys[1:], exact[0][1:]),
        "gradient_error": relative_error(grad, exact[1]),
    }


def reference(case: Case) -> tuple[Tensor, Tensor]:
    """States and gradient in float64."""
    field = copy.deepcopy(case.vector_field).double()
    double = replace(case, vector_field=field, y0=case.y0.double())
    solver = solver_of("dopri5", 1e-7)
    gradient = Checkpoint(max_checkpoints=None)  # as direct, in less memory
    return double.differentiated(lambda f: gradient.solve(solver, f, double.y0, double.ts, FirstSteps()).ys)


def main() -> None:
    """Prints a table for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="folder of a run on digits")
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for case in cases(arguments.run):
        exact = reference(case)
        found = [by_torchdiffeq(case, exact)]
        found += [measured(case, exact, method, tolerance) for method in METHODS for tolerance in TOLERANCES]
        header = ["method", "tolerance", "evaluations", "first step chosen", "solution error", "gradient error"]
        cells = [
            [
                row["method"],
                f"{row['tolerance']:g}",
                *(str(row[key]) for key in ("nfe", "nfe_chosen")),
                *(percent(row[key]) for key in ("solution_error", "gradient_error")),
            ]
            for row in found
        ]
        print(f"\n{case.name}\n\n{table(header, cells)}", flush=True)
        rows += found
    if arguments.save:
        RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
