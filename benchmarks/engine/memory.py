"""Peak memory of a solve and its gradient against the number of steps, each in a process of its own.

`python -m benchmarks.engine.memory <contender> <steps>` prints the bytes of one. A state of one MiB, steps of the 3/8
rule, which torchdiffeq calls rk4.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

from benchmarks.engine.measure import machine, table
from benchmarks.engine.peak import MALLOC, MIB, peak_of
from node_cli.ode import odeint
from node_cli.ode.gradients.checkpoint import Checkpoint

BATCH, WIDTH = 64, 4096
STEPS = (10, 20, 50, 100, 200)


class WideField(nn.Module):
    """Two layers with few parameters: memory is that of the solve."""

    def __init__(self) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.linspace(-1, 1, WIDTH))
        self.weight2 = nn.Parameter(torch.linspace(-1, 1, WIDTH))

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        """dy/dt."""
        return torch.tanh(torch.tanh(y * self.weight1) * self.weight2) - y


def _torchdiffeq(field: nn.Module, y0: Tensor, ts: Tensor, steps: int) -> Tensor:
    return torchdiffeq.odeint(field, y0, ts, method="rk4", options={"step_size": 1 / steps})


def _ours(gradient: Any, **keys: str) -> Callable[[nn.Module, Tensor, Tensor, int], Tensor]:
    return lambda field, y0, ts, steps: odeint(
        field, y0, ts, method="rk4_38", num_steps=steps, gradient=gradient, **keys
    )


CONTENDERS = {
    "torchdiffeq direct": _torchdiffeq,
    "direct": _ours("direct"),
    "checkpoint": _ours("checkpoint"),
    "checkpoint, max_checkpoints=10": _ours(Checkpoint(max_checkpoints=10)),
    "adjoint": _ours("adjoint"),
    "direct, compile=solve": _ours("direct", compile="solve"),
    "checkpoint, compile=solve": _ours("checkpoint", compile="solve"),
}


def run() -> dict[str, Any]:
    """All figures of this case."""
    rows = [{"contender": name, "bytes": [_in_a_process(name, steps) for steps in STEPS]} for name in CONTENDERS]
    return {"machine": machine(), "state_bytes": 4 * BATCH * WIDTH, "steps": STEPS, "rows": rows}


def markdown(result: dict[str, Any]) -> str:
    """The table, in MiB; a state has one."""
    rows = [[row["contender"], *(f"{value / MIB:.1f}" for value in row["bytes"])] for row in result["rows"]]
    return table(["peak memory, MiB", *(f"{steps} steps" for steps in result["steps"])], rows)


def _in_a_process(name: str, steps: int) -> int:
    command = [sys.executable, "-m", "benchmarks.engine.memory", name, str(steps)]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | MALLOC).stdout)


def _peak_of(name: str, steps: int) -> int | None:
    """Bytes above what is there after a solve of the same shape, which is compiled by then."""
    field, ts, y0 = WideField(), torch.tensor([0.0, 1.0]), torch.randn(BATCH, WIDTH)

    def step() -> None:
        CONTENDERS[name](field, y0, ts, steps)[-1].square().sum().backward()

    step()
    return peak_of(step)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(str(_peak_of(sys.argv[1], int(sys.argv[2]))))
