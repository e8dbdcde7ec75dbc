"""What a run, its summary and node-eval say of batches and samples whose solve failed."""

import json
import re

import pytest

pytestmark = pytest.mark.slow

TRAIN = (
    *("run_dir=run", "dataset=moons", "dataset.num_samples=200", "model=odenet_mlp", "model.width=4", "solver=touchy"),
    *("gradient=direct", "trainer.epochs=2", "trainer.batch_size=8", "trainer.max_skipped=99"),
)
NOTHING_FAILED = {"skipped": 0, "fallbacks": 0}


def records(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def row(name, text):
    """The rest of the line that starts with `name`, None where there is none."""
    found = re.search(rf"^  {name}  +(.*)$", text, re.MULTILINE)
    return found and found[1]


@pytest.mark.parametrize(("policy", "counter"), [("skip_batch", "skipped"), ("fallback", "fallbacks")])
def test_a_run_tells_how_many_batches_and_samples_failed(policy, counter, command, tmp_path):
    status, text = command("node-train", *TRAIN, f"solver.on_failure={policy}", "solver.limit=1.6")
    assert status == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    count = summary["failures"][counter]
    assert summary["failures"] == NOTHING_FAILED | {counter: count}
    assert 0 < count < summary["steps"] == 36
    assert row(counter, text) == f"{count} of 36 batches"
    assert records(tmp_path / "run")[-2]["val/failed"] == summary["metrics"]["val/failed"] > 0
    assert row("test failed", text) == f"{summary['metrics']['test/failed']} samples"
    assert [line[f"solver/{counter}"] for line in records(tmp_path / "run") if f"solver/{counter}" in line][-1] == count
    assert (tmp_path / "run" / "curves.png").is_file()


def test_a_run_without_failures_says_nothing_of_them(command, tmp_path):
    status, text = command("node-train", *TRAIN, "trainer.epochs=1", "solver.on_failure=skip_batch")
    assert status == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["failures"] == NOTHING_FAILED
    assert summary["metrics"]["val/failed"] == summary["metrics"]["test/failed"] == 0
    assert "failed" not in text
    assert row("skipped", text) is None


def test_a_run_in_which_every_batch_was_skipped_ends_with_sound_figures(command, tmp_path):
    words = ("solver.on_failure=skip_batch", "solver.limit=1.3", "trainer.batch_size=140", "trainer.epochs=3")
    status, text = command("node-train", *TRAIN, *words)
    assert status == 0
    assert row("skipped", text) == "3 of 3 batches"
    assert row("NFE", text) is None


def test_a_solver_that_never_succeeds_trains_by_its_fallback_until_it_is_evaluated(command):
    status, text = command("node-train", *TRAIN, "solver=dopri5", "solver.max_nfe=4", "solver.on_failure=fallback")
    assert status == 1
    assert text.count("the fallback solves this batch (later ones are only counted): the ODE solve failed") == 1
    assert "node-train: evaluating the val split after step 18: the ODE solve failed" in text
    assert "and so for each of the 20 samples alone; the evaluations of the vector field reached" in text


def test_node_eval_tells_how_many_samples_failed(command):
    assert command("node-train", *TRAIN, "trainer.epochs=1")[0] == 0
    other = ("run=run", "solver=touchy", "solver.num_steps=9", "solver.limit=1.6")
    status, text = command("node-eval", *other, "solver.on_failure=skip_batch")
    assert status == 0
    header, own, finer = (line.split("  ") for line in text.splitlines()[2:5])
    column = [name.strip() for name in header if name].index("failed")
    assert [name for name in own if name][column].strip() == "0"
    count = int([name for name in finer if name][column])
    assert 0 < count < 40
    verdict = text.splitlines()[-1]
    assert verdict.startswith(f"The solve of {count} samples under Touchy num_steps=9 failed: whether the network is")

    status, text = command("node-eval", *other, "solver.on_failure=skip_batch", "solver.limit=0.001")
    assert status == 1
    assert (
        "node-eval: the ODE solve failed at t = 0 after 7 evaluations: and so for each of the 40 samples alone" in text
    )

    status, text = command("node-eval", *other)
    assert status == 1
    assert "and so for" not in text

    status, text = command("node-eval", "run=run", "solver=touchy", "solver.num_steps=9")
    assert status == 0
    assert "failed" not in text
