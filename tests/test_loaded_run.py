"""`load_run`: a run read back, used, and not trusted."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from node_cli import load_run
from node_cli.config import ConfigError
from node_cli.training.checkpoint import read_checkpoint, write_checkpoint
from node_cli.training.evaluation import evaluate

NOTEBOOK = Path(__file__).parents[1] / "examples" / "load_run.ipynb"
WORDS = [
    *("dataset=moons", "model=odenet_mlp", "model.width=8", "solver=rk4", "solver.num_steps=2", "num_threads=1"),
    *("device=cpu", "logger=jsonl", "trainer.epochs=2", "trainer.batch_size=128", "run_dir=outputs/moons"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, typed_in):
    folder = tmp_path_factory.mktemp("trained")
    typed_in(folder, "node-train", *WORDS)
    return folder


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs" / "moons"


def test_a_run_has_what_was_trained_and_logged(folder):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    run = load_run("outputs/moons", device="cpu")
    assert (torch.get_num_threads(), torch.equal(torch.get_rng_state(), state)) == (threads, True)
    assert run.config["model"]["width"] == 8
    assert not run.model.training
    best = read_checkpoint(folder / "checkpoints" / "best.pt")["model"]
    assert all(torch.equal(weight, best[name]) for name, weight in run.model.named_parameters())
    assert run.summary == json.loads((folder / "summary.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert run.metrics == lines
    assert {"step", "val/accuracy"} <= {tag for row in run.metrics for tag in row}
    assert run.data.offers["class_names"] == ("0", "1")
    assert run.notes == []


def test_its_evaluation_is_that_of_the_run(folder):
    run = load_run(folder, device="cpu")
    test = run.dataset().splits["test"]
    evaluation = evaluate(run.model, run.task, run.dataset(), "test", run.batch_size, "float32")
    assert evaluation.metrics["loss"] == pytest.approx(run.summary["metrics"]["test/loss"], rel=1e-6)
    rows = run.predict(test["inputs"], batch_size=7)
    names = np.array(run.data.offers["class_names"])
    assert (rows["class"] == names[test["targets"]]).mean() == run.summary["metrics"]["test/accuracy"]
    assert rows["probability"].shape == (len(test["inputs"]), 2)
    assert not rows["failed"].any()
    again = run.predict({"inputs": test["inputs"].tolist()})
    np.testing.assert_array_equal(again["class"], rows["class"])


def test_the_last_weights_and_those_of_a_file_are_taken_too(folder):
    last = read_checkpoint(folder / "checkpoints" / "last.pt")["model"]
    for run in (load_run(folder, checkpoint="last"), load_run(folder / "checkpoints" / "last.pt")):
        assert all(torch.equal(weight.cpu(), last[name]) for name, weight in run.model.named_parameters())


def test_a_run_that_has_not_finished_has_no_summary(folder):
    (folder / "summary.json").unlink()
    (folder / "metrics.jsonl").write_text('{"step": 1, "train/loss": "nan"}\n{"step": 2, "tra')
    run = load_run(folder)
    assert run.summary is None
    [row] = run.metrics
    assert np.isnan(row["train/loss"])


@pytest.mark.parametrize(
    ("damage", "keys", "message"),
    [
        (lambda run: None, {"checkpoint": "first"}, "checkpoint must be best or last, got 'first'"),
        (shutil.rmtree, {}, "no run at "),
        (
            lambda run: (run / "checkpoints" / "best.pt").write_bytes(b"half"),
            {},
            "best.pt is damaged, or no checkpoint",
        ),
        (
            lambda run: rewrite(run, "node_cli.models.odenet_mlp.OdeNetMlp", "mylab.Net"),
            {},
            "model._target_=mylab.Net is not allowed: a model is what configs/model/ names, or comes from a package",
        ),
        (lambda run: change_spec(run, samples={}), {}, "best.pt is damaged: what it holds of its dataset is damaged"),
        (lambda run: change_spec(run, offers={}), {}, "needs class_names"),
    ],
)
def test_what_is_wrong_with_a_run_is_one_line(damage, keys, message, folder):
    damage(folder)
    with pytest.raises(ConfigError) as error:
        load_run(folder, **keys)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def rewrite(run, old, new):
    path = run / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace(old, new))


def change_spec(run, **changes):
    path = run / "checkpoints" / "best.pt"
    payload = read_checkpoint(path)
    payload["run"]["dataset"] |= changes
    write_checkpoint(path, payload)


def test_a_run_without_records_says_so(folder):
    (folder / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"metrics.jsonl does not exist: the run kept no records"):
        _ = load_run(folder).metrics


def test_the_notebook_runs(folder):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    names: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert names["grid"]["probability"].shape == (4800, 2)
