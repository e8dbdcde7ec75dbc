"""Time series by typed commands, beside what others reach: accuracies, parameters, seconds of whole processes.

    python benchmarks/trajectories.py [--cases spiral,known,forecast,storms,energy,sindy] [--save]

Each run is a process of its own, `node-train task=trajectory ...`, on one thread. The spiral takes turns with
torchdiffeq's demo. Choices among models are made on validation; the test error of the chosen one is shown.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from node_cli import load_run

FOLDER = Path("outputs") / "trajectories"
RESULTS = Path(__file__).parent / "results" / "trajectories.json"
LBFGS = ("optimizer=lbfgs", "scheduler=constant")
WHOLE = ("dataset.val=0", "dataset.test=0")
EXACT = ("model=known", *LBFGS, "solver.rtol=1e-5", "trainer.epochs=4", "trainer.updates_per_epoch=5")
LYNX = {"alpha": 0.5402, "beta": 0.02717, "gamma": 0.7964, "delta": 0.02369}  # scipy's least squares of logarithms
INFLUENZA = {"beta": 1.788, "gamma": 0.4557}  # scipy's least squares
ENERGIES = {
    "pendulum": lambda q, p: 3 * (1 - np.cos(q)) + p**2,
    "spring": lambda q, p: q**2 + p**2,
}
NETWORK = (
    "model.width=64",
    "task.match_until=1.0",
    "trainer.epochs=20",
    "trainer.updates_per_epoch=100",
    "optimizer.lr=3e-3",
)
SPIRAL = (
    *("dataset=spiral", "dataset.window=null", *WHOLE, *LBFGS, "precision=float64", "solver.rtol=1e-5"),
    *("task.strategy=windows", "task.window=51", "task.match_until=0.33", "trainer.epochs=6"),
    "trainer.updates_per_epoch=10",
)
STORMS = ("dataset=storms", "trainer.epochs=20", "trainer.updates_per_epoch=null", "trainer.batch_size=256")
FORECASTS = {
    "neural_ode": ("model=neural_ode",),
    "neural_ode, narrow": ("model=neural_ode", "model.width=16"),
    "neural_ode, growing": ("model=neural_ode", "model.width=16", "task.strategy=growing"),
    "neural_ode, learned start": ("model=neural_ode", "model.width=16", "model.start=learned"),
    "hybrid": ("model=hybrid", "model.network_penalty=0.1"),
    "hybrid, strong penalty": ("model=hybrid", "model.network_penalty=10"),
    "gru": ("model=gru",),
    "linear_ar": ("model=linear_ar",),
}


def main() -> None:
    """Runs the cases and prints what they reach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS.name} beside the other results")
    arguments = parser.parse_args()
    results = {}
    for name in arguments.cases.split(","):
        results[name] = CASES[name]()
        print(json.dumps({name: results[name]}, indent=2), flush=True)
    if arguments.save:
        if RESULTS.exists():
            results = {**json.loads(RESULTS.read_text(encoding="utf-8")), **results}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def train(name: str, *overrides: str) -> tuple[Path, dict[str, Any], float]:
    """One run: its folder, its summary, and the seconds of the whole process."""
    run_dir = FOLDER / time.strftime("%Y-%m-%d-%H-%M-%S") / name.replace(" ", "_").replace(",", "")
    arguments = ["task=trajectory", "num_threads=1", "logger=none", f"run_dir={run_dir}", *overrides]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "node_cli.cli.train", *arguments], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    return run_dir, summary, round(seconds, 1)


def spiral() -> dict[str, Any]:
    """The demo of torchdiffeq beside a run of ours, in turn, twice; ours does not know that the field is cubic."""
    found: dict[str, Any] = {"torchdiffeq": [], "ours": []}
    for _ in range(2):
        started = time.perf_counter()
        error = demo_of_torchdiffeq()
        found["torchdiffeq"].append({"mae": error, "seconds": round(time.perf_counter() - started, 1)})
        _, summary, seconds = train("spiral", *SPIRAL)
        found["ours"].append({"mae": summary["metrics"]["test/mae"], "seconds": seconds})
    return found


def demo_of_torchdiffeq() -> float:
    """Mean absolute error over the whole trajectory after 2,000 iterations with the settings of its `ode_demo.py`.

    20 pieces of 10 times in a batch, RMSprop at 1e-3, the cubes of the state as what the network sees, dopri5 at its
    default tolerances, an evaluation of the whole trajectory every 20 iterations.
    """
    from torchdiffeq import odeint

    torch.manual_seed(0)
    torch.set_num_threads(1)
    matrix = torch.tensor([[-0.1, 2.0], [-2.0, -0.1]])
    start, times = torch.tensor([[2.0, 0.0]]), torch.linspace(0.0, 25.0, 1000)

    class Field(nn.Module):
        """The network of the demo, of cubes."""

        def __init__(self) -> None:
            super().__init__()
            layers = nn.Linear(2, 50), nn.Linear(50, 2)
            for layer in layers:
                nn.init.normal_(layer.weight, mean=0, std=0.1)
                nn.init.constant_(layer.bias, val=0)
            self.net = nn.Sequential(layers[0], nn.Tanh(), layers[1])

        def forward(self, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            """dy/dt."""
            slope: torch.Tensor = self.net(y**3)
            return slope

    with torch.no_grad():
        truth = odeint(lambda t, y: (y**3) @ matrix, start, times, method="dopri5")
    field, pieces = Field(), torch.Generator().manual_seed(0)
    optimizer, error = torch.optim.RMSprop(field.parameters(), lr=1e-3), math.nan
    for iteration in range(1, 2001):
        begin = torch.randperm(990, generator=pieces)[:20]
        target = torch.stack([truth[begin + i] for i in range(10)])
        optimizer.zero_grad()
        (odeint(field, truth[begin], times[:10]) - target).abs().mean().backward()
        optimizer.step()
        if iteration % 20 == 0:
            with torch.no_grad():
                error = (odeint(field, start, times) - truth).abs().mean().item()
    return error


def known() -> dict[str, Any]:
    """Parameters of equations by least squares, beside scipy's; and the forecast of the five last years."""
    _, lynx, lynx_seconds = train("lynx", *EXACT, *WHOLE, "task.loss=log_mse")
    _, boys, boys_seconds = train(
        "influenza", *EXACT, *WHOLE, "dataset=influenza", "model.equations=sir", "model.fixed={population: 763}"
    )
    _, forecast, forecast_seconds = train("lynx_forecast", *EXACT, "dataset.val=0", "task.loss=log_mse")
    return {
        "lynx_hare": {
            **_beside(lynx["details"]["parameters"], LYNX),
            "log_rmse": lynx["metrics"]["test/log_rmse"],
            "seconds": lynx_seconds,
        },
        "influenza": {
            **_beside(boys["details"]["parameters"], INFLUENZA),
            "rmse": boys["metrics"]["test/rmse"],
            "seconds": boys_seconds,
        },
        "forecast of 1916 to 1920": {
            "log_rmse": forecast["metrics"]["test/log_rmse"],
            "persistence": forecast["metrics"]["test/persistence_log_rmse"],
            "seconds": forecast_seconds,
        },
    }


def _beside(found: dict[str, Any], scipy: dict[str, float]) -> dict[str, Any]:
    return {
        name: {"value": found[name]["value"], "off_scipy": found[name]["value"] / value - 1}
        for name, value in scipy.items()
    }


def forecast() -> dict[str, Any]:
    """Networks for lynx and hare, each with two seeds: the one of the least validation loss, and all of them."""
    rows = []
    for name, overrides in FORECASTS.items():
        for seed in range(2):
            _, summary, seconds = train(f"{name} {seed}", *overrides, f"seed={seed}")
            metrics = summary["metrics"]
            row = {"model": name, "seed": seed, "val_loss": metrics["val/loss"]}
            rows.append({**row, "test_log_rmse": metrics["test/log_rmse"], "seconds": seconds})
    means = {name: np.mean([row["val_loss"] for row in rows if row["model"] == name]) for name in FORECASTS}
    chosen = min(means, key=lambda name: float(means[name]))
    errors = [row["test_log_rmse"] for row in rows if row["model"] == chosen]
    return {"chosen": chosen, "test_log_rmse": errors, "mean": float(np.mean(errors)), "all": rows}


def storms() -> dict[str, Any]:
    """24 hours ahead, of the last years; the model is chosen by the loss of the years before them."""
    rows = {}
    for name, overrides in {
        "neural_ode": ("model=neural_ode", "model.start=last", "optimizer.lr=3e-3"),
        "second_order": ("model=second_order", "model.start=last", "optimizer.lr=3e-3"),
        "gru": ("model=gru", "optimizer.lr=3e-3"),
        "linear_ar": ("model=linear_ar", "optimizer.lr=3e-3"),
    }.items():
        _, summary, seconds = train(f"storms {name}", *STORMS, *overrides)
        last = summary["details"]["at_the_last_time"]
        wind = last["wind"]
        rows[name] = {
            "val_loss": summary["metrics"]["val/loss"],
            **last["track"],
            "wind_mae": wind["mae"],
            "persistence_wind_mae": wind["persistence_mae"],
            "seconds": seconds,
        }
    return {"chosen": min(rows, key=lambda name: rows[name]["val_loss"]), **rows}


def energy() -> dict[str, Any]:
    """How far the true energy drifts along predictions of test series, mean square, from their first observations."""
    found = {}
    for dataset, of in ENERGIES.items():
        for model in ("hamiltonian", "neural_ode"):
            folder, _, seconds = train(f"{dataset} {model}", f"dataset={dataset}", f"model={model}", *NETWORK)
            run = load_run(folder, device="cpu")
            units, test = run.dataset().offers["units"], run.dataset().splits["test"]
            raw = {"times": units.times(test["times"]), "values": units.values(test["values"]), "mask": test["mask"]}
            predicted = run.predict(raw)["prediction"].astype(float)
            energies = of(predicted[..., 0], predicted[..., 1])
            found[f"{dataset}, {model}"] = {
                "energy_error": float(np.square(energies - energies[:, :1]).mean()),
                "seconds": seconds,
            }
    return found


def sindy() -> dict[str, Any]:
    """The equations that are found in noisy series of prey and predator."""
    _, summary, seconds = train(
        "sindy",
        *("dataset=lotka_volterra", "dataset.window=null", "model=sindy", "model.start=first", "task.strategy=windows"),
        *("task.match_until=0.3", "optimizer.lr=0.03", "solver=rk4", "solver.num_steps=1", "model.threshold=0.2"),
    )
    return {"equations": summary["details"]["equations"], "seconds": seconds}


CASES = {
    "spiral": spiral,
    "known": known,
    "forecast": forecast,
    "storms": storms,
    "energy": energy,
    "sindy": sindy,
}


if __name__ == "__main__":
    main()
