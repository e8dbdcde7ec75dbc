"""Models of series, of which two processes have very different shares: for `shared_training.py`."""

from __future__ import annotations

import torch
from parts import make_part
from torch import Tensor, nn

from node_cli.datasets.dataset import Dataset
from node_cli.datasets.scaling import Scaling
from node_cli.latent import Posterior
from node_cli.models.sequences.latent_ode import LatentOde
from node_cli.series import MASK, TARGET, TARGETS, TIMES, TRUTH, VALUES, Units
from node_cli.tasks.classification import Classification
from node_cli.tasks.latent import Latent
from node_cli.tasks.regression import Regression
from node_cli.tasks.task import Task

UNITS = Units(mean=(1.0, -2.0), std=(2.0, 0.5), is_log=False, t0=0.0, time_scale=3.0)
SETTINGS = {"epochs": 1, "batch_size": 4, "eval_batch_size": 3}
LATENT = {"num_samples": 2, "eval_samples": 2, "kl_weight": 1.0, "kl_from": 0.5, "kl_until": 0.5}
ONE_STEP = {"name": "midpoint1"}
IN_STEP = {"name": "bosh3", "sync_steps": True, "rtol": 1e-3, "atol": 1e-3, "compile": "none"}


class Ends(Posterior):
    """Whose samples are by turns one std above and below the mean: the random numbers of a process are its own."""

    def draw(self, count: int, generator: torch.Generator | None) -> Tensor:
        signs = torch.tensor([1.0, -1.0]).repeat(count)[:count].to(self.mean)
        return self.mean + signs[:, None, None] * self.std


class Steady(LatentOde):
    def posterior(self, batch):
        return Ends(*super().posterior(batch))


def latent(model: str, solver: dict, *, rates: bool = False, **keys) -> tuple[nn.Module, Task]:
    task = Latent(UNITS, ("a", "b"), has_truth=True, rates=rates, **LATENT)
    own = {"_target_": "shared_series.Steady", "encoder_width": 3, "latent_dim": 2} if model == "latent_ode" else {}
    built = built_model(model, solver, **own, **({"learns_rates": rates} if own else {}), **keys)
    task.equip(built)
    return built, task


def classes(model: str, solver: dict, **keys) -> tuple[nn.Module, Task]:
    keys |= {"num_outputs": 3, "noise": 0.0}
    return built_model(model, solver, **keys), Classification(("x", "y", "z"), units=UNITS, label_smoothing=0.1)


def numbers(model: str, solver: dict, **keys) -> tuple[nn.Module, Task]:
    scaling = Scaling((5.0, 6.0), (2.0, 3.0))
    keys |= {"num_outputs": 2, "noise": 0.0}
    return built_model(model, solver, **keys), Regression(("p", "q"), scaling, UNITS, kinetic=0.0)


def built_model(name: str, solver: dict, **keys) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"width": 4, "num_channels": 2, "num_controls": 0, "num_statics": 0}
    solving = (
        {} if name == "gru" else {"solver": make_part("solver", **solver), "gradient": make_part("gradient", "direct")}
    )
    return make_part("model", name, **{**sizes, **solving, **keys})


SERIES = {
    "latent ODE of a GRU, with rates": lambda: latent("latent_ode", ONE_STEP, rates=True),
    "latent ODE of an ODE-RNN in step": lambda: latent("latent_ode", IN_STEP, encoder="ode_rnn"),
    "latent ODE of a CDE in step": lambda: latent("latent_ode", IN_STEP, encoder="cde"),
    "forecasts of a GRU": lambda: latent("gru", ONE_STEP),
    "forecasts of an ODE-RNN in step": lambda: latent("ode_rnn", IN_STEP, hidden_width=4),
    "forecasts of a neural ODE in step": lambda: latent("neural_ode", IN_STEP, num_starts=1, num_segments=1),
    "classes by a GRU": lambda: classes("gru", ONE_STEP),
    "classes by a CDE along straight lines in step": lambda: classes("cde", IN_STEP, hidden_width=4, control="linear"),
    "numbers by a CDE": lambda: numbers("cde", ONE_STEP, hidden_width=4),
    "numbers by an ODE-RNN in step": lambda: numbers("ode_rnn", IN_STEP, hidden_width=4),
}


def series(task: Task) -> Dataset:
    """Nine series to train with, four to validate, three to test: the last batches have one.

    The first half of a batch has few observations, at the same times in validation; the others have many.
    """
    generator = torch.Generator().manual_seed(1)

    def split(count: int, num_times: int = 9) -> dict[str, Tensor]:
        gaps = torch.rand(count, num_times, generator=generator, dtype=torch.float64) / 2 + 0.1
        is_short = torch.arange(count) % 3 < 2 if count == 9 else torch.arange(count) < 2
        gaps[is_short] = gaps[0].clone()
        times = gaps.cumsum(1) - gaps[:, :1]
        real = torch.arange(num_times) < torch.where(is_short, 4, num_times)[:, None]
        times = torch.where(real, times, times.masked_fill(~real, 0).amax(1, keepdim=True))
        truth = torch.sin(times[..., None] * torch.tensor([1.0, 2.0]) + torch.arange(count)[:, None, None])
        observed = real[..., None] & (torch.rand(truth.shape, generator=generator) < 0.8)
        observed[:, 0, 0] = observed[:, 3, 1] = True
        seen = observed & (torch.arange(num_times) < torch.where(is_short, 2, 6)[:, None])[..., None]
        values = (truth + 0.1 * torch.randn(truth.shape, generator=generator)) * observed
        batch = {TIMES: times, VALUES: values, MASK: seen, TARGET: observed & ~seen, TRUTH: truth}
        if isinstance(task, Classification):
            batch[TARGETS] = torch.arange(count) % 3
        if isinstance(task, Regression):
            batch[TARGETS] = torch.stack([truth[:, 0, 0], times[:, -1]], dim=1)
        return batch

    return Dataset({"train": split(9), "val": split(4), "test": split(3)}, {})
