"""A run that was stopped after any update and continued in a new trainer is the run that was not."""

import copy
from functools import partial

import pytest
import torch
from parts import make_part
from small_runs import Recorder, build_ode_net, build_trainer, image_dataset, point_dataset
from touchy import Touchy

from node_cli.training.checkpoint import Checkpoints, read_checkpoint
from node_cli.training.payload import refusal
from node_cli.training.schedules import Constant, Cosine, OneCycle, Step
from node_cli.training.trainer import TrainState

pytestmark = pytest.mark.slow

OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adamw": partial(torch.optim.AdamW, lr=0.01),
    "lbfgs": partial(torch.optim.LBFGS, lr=1.0, max_iter=2, line_search_fn="strong_wolfe"),
}
SCHEDULES = {
    "constant": Constant(),
    "step": Step(milestones=[0.5], factor=0.1),
    "cosine": Cosine(warmup=0.2, final=0.0),
    "one_cycle": OneCycle(warmup=0.3, initial=0.1, final=0.0),
}
CASES = [
    ("sgd", "constant", "direct", "dopri5", "float32"),
    ("sgd", "cosine", "adjoint", "dopri5", "float32"),
    ("sgd", "one_cycle", "direct", "rk4", "bfloat16"),
    ("adamw", "step", "adjoint", "rk4", "float32"),
    ("adamw", "one_cycle", "direct", "rk4", "float32"),
    ("adamw", "cosine", "adjoint", "dopri5", "bfloat16"),
    ("adamw", "constant", "checkpoint", "carried", "float32"),
    ("lbfgs", "constant", "direct", "rk4", "float32"),
]
COARSE = {
    "dopri5": {"rtol": 1.0, "atol": 1.0, "first_step": 0.6},
    "carried": {"method": "dopri5", "rtol": 0.1, "atol": 0.1},  # which carries its first step over
    "rk4": {"num_steps": 1},
}
CLOCKS = ("time/step_ms", "memory/peak_mb")


def build(optimizer, schedule, gradient, solver, precision, **settings):
    part = make_part("solver", "rk4" if solver == "rk4" else "dopri5", **COARSE[solver])
    model = build_ode_net("odenet", part, make_part("gradient", gradient))
    return build_trainer(
        model,
        image_dataset(),
        optimizer=OPTIMIZERS[optimizer],
        schedule=SCHEDULES[schedule],
        precision=precision,
        clip_norm=None if optimizer == "lbfgs" else 1.0,
        **settings,
    )


def run(trainer, folder):
    """What a run leaves, less clocks: its records by step, and its state."""
    recorder = Recorder()
    trainer.fit(recorder, Checkpoints(folder, keep=100))
    state = copy.deepcopy(trainer.state_dict())
    state["state"].pop("seconds")
    for epoch in state["state"]["history"]:
        epoch.pop("time/step_ms")
    return [record for record in recorder.scalars if record[1] not in CLOCKS], plain(state)


def plain(tree):
    """The same containers with text for tensors, so that == compares every bit that matters, NaN included."""
    if isinstance(tree, torch.Tensor):
        return str(tree.dtype), repr(tree.tolist())
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


def continued(trainer, checkpoint, folder):
    torch.rand(3)  # a new process has another random state
    payload = read_checkpoint(checkpoint)
    parts = trainer.model, trainer.average, trainer.evaluated, trainer.optimizer, trainer.rate.state_dict()
    assert refusal(payload, *parts) == ""
    trainer.load_state_dict(payload)
    return run(trainer, folder)


def assert_continues_exactly(build_run, tmp_path):
    """From each of its six steps; returns the state at the end."""
    folders = [tmp_path / name for name in ("whole", "saved", "continued")]
    records, state = run(build_run(), folders[0])
    assert run(build_run(save_every_steps=1), folders[1]) == (records, state)
    checkpoints = sorted(folders[1].glob("step-*.pt"))
    assert [path.name for path in checkpoints] == [f"step-{step:08d}.pt" for step in range(1, 7)]
    for step, path in enumerate(checkpoints, 1):
        late_records, late_state = continued(build_run(), path, folders[2])
        assert late_records == [record for record in records if record[0] > step]
        assert late_state == state
    return state["state"]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_stopped_after_any_step(case, tmp_path):
    assert_continues_exactly(partial(build, *case), tmp_path)


@pytest.mark.parametrize(
    ("policy", "only_backward", "counted"),
    [
        ("skip_batch", False, (2, 0)),
        ("skip_batch", True, (2, 0)),
        ("fallback", False, (0, 2)),
        ("fallback", True, (0, 2)),
    ],
)
def test_stopped_before_and_after_batches_whose_solve_failed(policy, only_backward, counted, tmp_path):
    def build_run(**settings):
        dataset = point_dataset()
        dataset.splits["train"]["inputs"][3] = 9.0  # fails in each epoch
        solver = Touchy(on_failure=policy, only_backward=only_backward)
        net = build_ode_net("odenet_mlp", solver, make_part("gradient", "adjoint" if only_backward else "direct"))
        model = torch.nn.Sequential(net, torch.nn.Dropout(0.5))  # a failed attempt draws random numbers too
        return build_trainer(model, dataset, optimizer=OPTIMIZERS["adamw"], schedule=SCHEDULES["cosine"], **settings)

    state = assert_continues_exactly(build_run, tmp_path)
    assert (state["num_skipped"], state["num_fallbacks"]) == counted


def test_stopped_where_weights_are_averaged_and_the_run_ends_early(tmp_path):
    """Early stopping counts epochs over all sessions: the second is no better than the first."""

    def build_run(**settings):
        dataset = point_dataset()
        return build_trainer(
            dataset=dataset, optimizer=OPTIMIZERS["sgd"], average_decay=0.7, patience=1, epochs=4, **settings
        )

    def build_impatient(**settings):
        trainer = build_run(**settings)
        trainer.task.metrics = lambda batch, rows: {"loss": 1.0, "accuracy": 0.5, "error": 0.5}
        return trainer

    state = assert_continues_exactly(build_impatient, tmp_path)
    assert (state["epoch"], state["best_epoch"]) == (2, 1)


def test_stopped_before_and_after_bad_steps_that_were_skipped(tmp_path):
    def build_run(**settings):
        dataset = point_dataset()
        dataset.splits["train"]["inputs"][7] = 1e6  # a spike in each epoch
        bad = {"on_bad_step": "skip_batch", "spike_factor": 50.0}
        return build_trainer(dataset=dataset, optimizer=OPTIMIZERS["adamw"], **bad, **settings)

    state = assert_continues_exactly(build_run, tmp_path)
    assert (state["num_bad"], state["num_skipped"]) == (2, 0)


def test_the_cases_name_every_choice():
    assert {choice for case in CASES for choice in case} == {
        *OPTIMIZERS, *SCHEDULES, *COARSE, "direct", "adjoint", "checkpoint", "float32", "bfloat16"
    }  # fmt: skip


def test_a_longer_run_goes_on_from_the_end_of_a_shorter_one(tmp_path):
    """With a schedule that does not look at the length of the run, it is the longer run from the start."""
    case = CASES[0]
    records, state = run(build(*case, epochs=3), tmp_path / "whole")
    short, _ = run(build(*case, epochs=2), tmp_path / "short")
    late, late_state = continued(build(*case, epochs=3), tmp_path / "short" / "last.pt", tmp_path / "short")
    before_test = [record for record in short if not record[1].startswith(("test/", "nfe/test"))]
    assert before_test + late == records
    was, now = state.pop("learning_rate"), late_state.pop("learning_rate")
    assert late_state == state
    assert (was["total_steps"], was["start"], now["total_steps"], now["start"]) == (9, 0, 9, 6)


def test_a_shorter_run_ends_where_its_checkpoint_stands(tmp_path):
    case = CASES[0]
    run(build(*case, save_every_steps=1), tmp_path / "whole")
    trainer = build(*case, max_steps=5)
    late, state = continued(trainer, tmp_path / "whole" / "step-00000005.pt", tmp_path / "late")
    assert state["state"]["step"] == 5
    assert {tag.partition("/")[0] for _, tag, _ in late} == {"val", "nfe", "epoch", "test"}
    assert trainer.is_done


def test_the_best_weights_are_those_of_the_checkpoint_and_not_of_the_folder(tmp_path):
    """The best checkpoint of a folder may come from after the one that a run is continued from."""
    case = CASES[0]
    run(build(*case, epochs=3), tmp_path)
    first = read_checkpoint(tmp_path / "step-00000003.pt")
    (tmp_path / "best.pt").unlink()
    _, state = continued(build(*case, epochs=1), tmp_path / "step-00000003.pt", tmp_path)
    assert state["model"] == plain(first["model"])
    assert state["state"]["best_epoch"] == 1


def test_another_environment_is_named(tmp_path, caplog):
    run(build(*CASES[0], epochs=1), tmp_path)
    torch.set_num_threads(2)
    continued(build(*CASES[0], epochs=1), tmp_path / "last.pt", tmp_path)
    assert "num_threads was 1 and is 2: results may differ in the last digits from here on" in caplog.messages


def test_the_state_is_plain(tmp_path):
    run(build(*CASES[0], epochs=1), tmp_path)
    assert TrainState(**read_checkpoint(tmp_path / "last.pt")["state"]).epoch == 1
