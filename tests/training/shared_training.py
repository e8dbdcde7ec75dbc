"""What two processes train together in `test_processes.py`, and what one trains alone to compare with."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch
from parts import make_part
from shared_series import SERIES, series
from shared_series import SETTINGS as OF_SERIES
from small_runs import Recorder, build_ode_net, build_trainer, image_dataset, point_dataset
from torch import nn
from touchy import Touchy

from node_cli.ode.solution import SolveError
from node_cli.tasks.classification import Classification
from node_cli.training.checkpoint import Checkpoints, read_checkpoint
from node_cli.training.processes import ALONE, Processes, joined
from node_cli.training.state import TrainingError
from node_cli.training.stopping import Stopped, Stopping

SGD = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
RK4 = {"num_steps": 2}
SYNC = {"sync_steps": True, "rtol": 1e-3, "atol": 1e-3}


def net(solver, gradient, **changes):
    return build_ode_net("odenet", make_part("solver", **solver), make_part("gradient", gradient, **changes))


EXACT = {
    "rk4 direct": (lambda: net({"name": "rk4", **RK4}, "direct"), {}),
    "rk4 checkpoint, clipped, averaged": (
        lambda: net({"name": "rk4", **RK4}, "checkpoint"),
        {"clip_norm": 0.05, "average_decay": 0.5},
    ),
    "rk4 adjoint, the stem frozen": (lambda: net({"name": "rk4", **RK4}, "adjoint"), {"freeze": ["stem"]}),
}
IN_STEP = {
    "dopri5 direct": (lambda: net({"name": "dopri5", **SYNC}, "direct"), {}),
    "dopri5 checkpoint": (lambda: net({"name": "dopri5", **SYNC}, "checkpoint"), {}),
    "dopri5 adjoint": (lambda: net({"name": "dopri5", **SYNC}, "adjoint"), {}),
    "dopri5 adjoint, semi": (lambda: net({"name": "dopri5", **SYNC, "safety": 0.8}, "adjoint", norm="semi"), {}),
    "bosh3 direct": (lambda: net({"name": "bosh3", **SYNC}, "direct"), {}),
}
APART = {"dopri5 apart": (lambda: net({"name": "dopri5", "rtol": 1e-2, "atol": 1e-2}, "direct"), {})}
CASES = EXACT | IN_STEP | APART


def train(case, processes, folder):
    """Two epochs of three batches, the last one of four samples; gradients of all steps, weights, records.

    In float64 where steps adapt: which side of a kink of ReLU a stage falls on hangs on the last bits of the step size.
    """
    make_model, settings = CASES[case]
    model, dataset = make_model(), image_dataset()
    if case not in EXACT:
        model.double()
        dataset = dataset.to(torch.device("cpu"), torch.float64)
    trainer = build_trainer(model, dataset, optimizer=SGD, processes=processes, **settings)
    grads = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: grads.append(
            torch.cat([p.grad.reshape(-1).clone() for p in model.parameters() if p.grad is not None])
        )
    )
    recorder = Recorder()
    evaluation = trainer.fit(recorder, Checkpoints(folder, keep=2) if processes.is_first else None)
    return {
        "grads": grads,
        "scalars": recorder.scalars,
        "weights": {name: weight.detach() for name, weight in model.named_parameters()},
        "metrics": evaluation.metrics,
        "outputs": evaluation.rows["class"],
        "nfe": [value for _, tag, value in recorder.scalars if tag.startswith("nfe/")],
    }


class StopsOne(Recorder):
    """Asks one of the processes to stop after a step."""

    def __init__(self, rank, step):
        super().__init__()
        self.rank, self.step = rank, step

    def log_scalars(self, step, values):
        super().log_scalars(step, values)
        if int(os.environ["RANK"]) == self.rank and step == self.step:
            os.kill(os.getpid(), 15)


def far_dataset(position):
    """A sample of the training split lies beyond the limit of `Touchy`."""
    dataset = point_dataset()
    dataset.splits["train"]["inputs"][position] = 9.0
    dataset.splits["val"]["inputs"][1] = 9.0
    return dataset


def touchy(policy, **settings):
    model = build_ode_net("odenet_mlp", Touchy(on_failure=policy), make_part("gradient", "direct"))
    return build_trainer(model, far_dataset(3), optimizer=SGD, **settings)


def failures(policy, processes, folder):
    """A batch, and a sample to validate, that can be solved in one process only."""
    trainer = touchy(policy, processes=processes)
    recorder = Recorder()
    error = ""
    try:
        trainer.fit(recorder, Checkpoints(folder, keep=2) if processes.is_first else None)
    except TrainingError as failure:
        error = str(failure)
    counts = (trainer.state.num_skipped, trainer.state.num_fallbacks)
    weights = [weight.detach() for weight in trainer.model.parameters()]
    failed = [value for _, tag, value in recorder.scalars if tag == "val/failed"]
    return {"error": error, "counts": counts, "weights": weights, "failed": failed}


def stopped(processes, folder, rank):
    """Stopped by a signal to one of the processes, and gone on with."""
    build = partial(build_trainer, build_noisy(), optimizer=SGD, processes=processes)
    checkpoints = Checkpoints(folder, keep=2) if processes.is_first else None
    torch.manual_seed(processes.rank)
    status, before = 0, signal.getsignal(signal.SIGTERM)
    try:
        with Stopping() as stopping:
            build().fit(StopsOne(rank, 4), checkpoints, stopping)
    except Stopped as stop:
        status = stop.status
    signal.signal(signal.SIGTERM, before)  # which is ignored in a process that is about to end
    torch.manual_seed(99)
    payload = processes.from_first(read_checkpoint(folder / "last.pt") if processes.is_first else None)
    again = build_trainer(build_noisy(), optimizer=SGD, processes=processes)
    again.load_state_dict(payload)
    again.fit(Recorder(), checkpoints)
    return {"status": status, "saved": payload["state"]["step"], "weights": weights_of(again)}


def build_noisy():
    """Dropout, whose random numbers every process has of its own, and running means."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))


def uninterrupted(processes, folder):
    torch.manual_seed(processes.rank)
    model = build_noisy()
    torch.manual_seed(processes.rank)
    trainer = build_trainer(model, optimizer=SGD, processes=processes)
    trainer.fit(Recorder(), Checkpoints(folder, keep=2) if processes.is_first else None)
    return {"weights": weights_of(trainer)}


def weights_of(trainer):
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


def tiny_batches(processes, folder):
    """A last batch of one sample, and a split whose last batch has one: a process is left without any."""
    dataset = point_dataset(num_train=9)
    trainer = build_trainer(dataset=dataset, optimizer=SGD, processes=processes, eval_batch_size=7)
    evaluation = trainer.fit(Recorder(), Checkpoints(folder, keep=2) if processes.is_first else None)
    return {"weights": weights_of(trainer), "metrics": evaluation.metrics, "outputs": evaluation.rows["class"]}


class Bad(Classification):
    """The loss of one process is not finite."""

    def loss(self, model, batch, progress):
        loss = super().loss(model, batch, progress)
        return loss._replace(total=loss.total * (float("nan") if os.environ.get("RANK") == "1" else 1.0))


def bad_step(processes, folder):
    trainer = build_trainer(task=Bad(("a", "b"), label_smoothing=0.0), processes=processes)
    try:
        trainer.fit(Recorder(), Checkpoints(folder, keep=2) if processes.is_first else None)
    except TrainingError as error:
        return {"error": str(error)}
    return {"error": ""}


def first_failure(processes, folder):
    """The failure of one process, as all of them see it."""
    try:
        with processes.failing_together():
            if processes.rank == 1:
                touchy("raise").model(torch.full((1, 2), 9.0))
    except SolveError as error:
        return {"error": str(error), "nfe": error.nfe}
    return {"error": ""}


def train_series(case, processes, folder):
    """In float64, for the same reason."""
    model, task = SERIES[case]()
    dataset = series(task).to(torch.device("cpu"), torch.float64)
    trainer = build_trainer(model.double(), dataset, task, optimizer=SGD, processes=processes, **OF_SERIES)
    recorder = Recorder()
    evaluation = trainer.fit(recorder, Checkpoints(folder, keep=2) if processes.is_first else None)
    return {
        "values": {tag: recorder.of(tag) for tag in {tag for _, tag, _ in recorder.scalars} if is_a_result(tag)},
        "weights": weights_of(trainer),
        "metrics": evaluation.metrics,
        "details": evaluation.details,
        "rows": evaluation.rows,
    }


def is_a_result(tag):
    return tag.startswith(("train/", "val/"))


OTHERS = {
    **{f"failures {policy}": partial(failures, policy) for policy in ("raise", "skip_batch", "fallback")},
    **{f"stopped {rank}": partial(stopped, rank=rank) for rank in (0, 1)},
    "uninterrupted": uninterrupted,
    "tiny batches": tiny_batches,
    "bad step": bad_step,
    "first failure": first_failure,
    **{case: partial(train_series, case) for case in SERIES},
}


def everything(processes: Processes, folder: Path) -> dict:
    """The results of all cases."""
    found = {case: train(case, processes, folder / case.replace(" ", "_")) for case in CASES}
    for name, work in OTHERS.items():
        found[name] = work(processes=processes, folder=folder / name.replace(" ", "_"))
    return found


def work(rank: int, folder: str, port_file: str) -> None:
    """One of the two processes."""
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port_file,
        "GLOO_SOCKET_IFNAME": "lo",
    }
    with joined(torch.device("cpu")) as processes:
        found = everything(processes, Path(folder))
    torch.save(found, Path(folder) / f"{rank}.pt")


def alone(case: str, folder: Path) -> dict:
    """The same in one process."""
    return train(case, ALONE, folder)


def main() -> None:
    """For `forked.Command`."""
    work(int(sys.argv[1]), sys.argv[2], sys.argv[3])
