"""`node-predict`: a split of a run's data, and new data, as CSV and npz; what is refused leaves nothing behind."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from node_cli.training.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.slow

WORDS = [
    *("dataset=npz", "dataset.path=x.npz", "model=odenet_mlp", "model.width=4", "solver=rk4", "solver.num_steps=2"),
    *("num_threads=1", "device=cpu", "logger=jsonl", "trainer.epochs=3", "optimizer.lr=0.05", "run_dir=run"),
]
QUIET = ["run=run", "num_threads=1", "device=cpu"]


def points(count, seed):
    """Of two classes, in units in which nothing is learned without scaling."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    return 1e4 + 300 * (rng.normal(size=(count, 2)) + 3 * targets[:, None]), targets


@pytest.fixture(scope="module")
def trained(tmp_path_factory, typed_in):
    folder = tmp_path_factory.mktemp("trained")
    (inputs, targets), (test_inputs, test_targets) = points(80, 0), points(30, 1)
    arrays = {"test_inputs": test_inputs, "test_targets": test_targets}
    np.savez(folder / "x.npz", inputs=inputs, targets=targets, **arrays)
    np.savez(folder / "new.npz", inputs=test_inputs)
    np.savez(folder / "labelled.npz", inputs=test_inputs, targets=test_targets)
    typed_in(folder, "node-train", *WORDS)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run" / ".hydra" / "origin.yaml").write_text(f"{tmp_path}\n")
    return tmp_path


@pytest.fixture
def predict(folder, typed):
    """`predict("out=a.csv")`: the status and what was printed."""
    return lambda *words: typed("node-predict", *QUIET, *words)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def arrays(path):
    with np.load(path) as found:
        return {name: found[name] for name in found.files}


def test_the_test_split_as_csv(predict, folder):
    result = predict("figures=false")
    assert (result.status, result.err) == (0, "")
    assert result.out == "predictions.csv: 30 samples\n"
    table = rows(folder / "predictions.csv")
    assert list(table[0]) == ["class", "probability_0", "probability_1", "failed", "targets"]
    assert {row["failed"] for row in table} == {"false"}
    right = sum(row["class"] == row["targets"] for row in table) / len(table)
    assert right == pytest.approx(json.loads((folder / "run" / "summary.json").read_text())["metrics"]["test/accuracy"])
    assert right > 0.9
    for row in table:
        probabilities = [float(row["probability_0"]), float(row["probability_1"])]
        assert sum(probabilities) == pytest.approx(1, abs=1e-6)
        assert row["class"] == str(np.argmax(probabilities))


def test_new_data_in_raw_units_are_what_they_are_as_a_split(predict, folder):
    assert predict("split=test", "out=split.npz", "figures=false").status == 0
    assert predict("dataset.path=new.npz", "out=new.npz.npz", "figures=false", "batch_size=7").status == 0
    assert predict("dataset.path=labelled.npz", "out=labelled.out.npz", "figures=false").status == 0
    split, new, labelled = (arrays(folder / name) for name in ("split.npz", "new.npz.npz", "labelled.out.npz"))
    assert sorted(new) == ["class", "failed", "probability", "probability_columns"]
    assert sorted(labelled) == sorted(split) == sorted([*new, "targets"])
    for name in new:
        np.testing.assert_array_equal(labelled[name], split[name])
        if new[name].dtype == np.float32:  # a batch of another size rounds otherwise
            np.testing.assert_allclose(new[name], split[name], rtol=1e-5)
        else:
            np.testing.assert_array_equal(new[name], split[name])


def test_new_data_need_none_of_the_old(predict, folder):
    (folder / "x.npz").unlink()
    result = predict("dataset.path=new.npz", "figures=false")
    assert (result.status, result.err) == (0, "")
    result = predict("split=test", "out=other.csv")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("node-predict: dataset.path: there is no file ")
    assert not (folder / "other.csv").exists()


def test_data_that_were_moved_are_those_of_a_split(predict, folder):
    (folder / "x.npz").rename(folder / "y.npz")
    result = predict("split=test", "dataset.path=y.npz", "figures=false")
    assert (result.status, result.err) == (0, "")
    assert "dataset.path: the data are read from y.npz now" in result.out


def test_figures_of_the_task_are_drawn(predict, folder):
    result = predict("out=a.csv", "batch_size=8")
    assert result.out.splitlines()[-1] == "figures: a_confusion_matrix.png, a_wrong_predictions.png, a_plane.png"
    result = predict("dataset.path=new.npz", "out=b.csv", "batch_size=8")
    assert result.out.splitlines()[-1] == "figures of the first 8 samples: b_predictions.png"
    for name in ("a_confusion_matrix.png", "a_wrong_predictions.png", "b_predictions.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_another_solver_predicts_otherwise(predict, folder):
    assert predict("out=own.npz", "figures=false").status == 0
    assert predict("out=finer.npz", "figures=false", "solver.num_steps=20").status == 0
    assert predict("out=other.npz", "figures=false", "solver=dopri5", "solver.rtol=1e-6", "checkpoint=last").status == 0
    own, finer, other = (arrays(folder / f"{name}.npz")["probability"] for name in ("own", "finer", "other"))
    assert not np.array_equal(own, finer)
    np.testing.assert_allclose(finer, other, atol=1e-3)


def test_samples_whose_solve_fails_are_marked(folder, command, monkeypatch):
    inputs, _ = points(6, 2)
    inputs[4] = 1e9
    np.savez(folder / "far.npz", inputs=inputs)
    solver = ["solver=touchy", "solver.limit=50.0"]
    status, told = command("node-predict", "run=run", "dataset.path=far.npz", "figures=false", *solver)
    assert (status, told) == (0, "predictions.csv: 6 samples, 1 without a prediction (failed solves)\n")
    table = rows(folder / "predictions.csv")
    assert [row["failed"] for row in table] == ["false"] * 4 + ["true", "false"]
    assert (table[4]["class"], table[4]["probability_0"]) == ("", "nan")

    np.savez(folder / "far.npz", inputs=inputs[4:5])
    status, told = command("node-predict", "run=run", "dataset.path=far.npz", "out=none.csv", *solver)
    assert status == 1
    assert "and so for each of the 1 samples alone" in told
    assert not (folder / "none.csv").exists()


def test_a_checkpoint_of_an_earlier_version_needs_its_dataset(predict, folder):
    path = folder / "run" / "checkpoints" / "best.pt"
    payload = read_checkpoint(path)
    del payload["run"]["dataset"]
    write_checkpoint(path, payload)
    assert predict("dataset.path=new.npz", "figures=false").status == 0
    (folder / "x.npz").unlink()
    result = predict("dataset.path=new.npz", "out=b.csv")
    assert result.status == 2
    assert result.err.count("\n") == 1
    assert "best.pt says nothing of its dataset, so that is needed" in result.err
    assert "dataset.path: there is no file" in result.err


def peak_after(action):
    """Bytes that the peak of this process's memory grew by in `action`."""
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    action()
    return peak() - before


def peak():
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def test_a_large_file_needs_no_more_memory_than_a_batch(predict, folder):
    inputs, _ = points(2_000_000, 3)
    np.savez(folder / "large.npz", inputs=inputs)
    size = inputs.nbytes
    del inputs
    assert predict("dataset.path=new.npz", "out=a.npz", "figures=false").status == 0  # everything is loaded
    words = ["dataset.path=large.npz", "out=b.npz", "figures=false", "batch_size=20000", "solver.num_steps=1"]
    assert peak_after(lambda: predict(*words)) < size / 2
    assert len(arrays(folder / "b.npz")["class"]) == 2_000_000


MISTAKES = {
    "no run": (["run=nothing"], "no run at nothing: nothing/.hydra/config.yaml does not exist"),
    "no checkpoint": (["run=run/checkpoints/step-1.pt"], "no checkpoint at run/checkpoints/step-1.pt"),
    "an unknown checkpoint": (["checkpoint=first"], "checkpoint must be best or last, got 'first'"),
    "an unknown split": (["split=all"], "split must be one of train, val, test, got 'all'"),
    "another ending": (["out=a.txt"], "out must end in .csv or .npz, got a.txt"),
    "no ending": (["out=a"], "out must end in .csv or .npz, got a"),
    "no name": (["out="], "out must be a file, of printable names up to 255 bytes, got ''"),
    "no folder": (["out=no/a.csv"], "out=no/a.csv cannot be written: no is not a folder"),
    "what is there": (["out=x.npz"], "out=x.npz: x.npz exists already: remove it, or set another out"),
    "a figure that is there": (["out=taken.csv"], "out=taken.csv: taken_map.png exists already: remove it, or set"),
    "a time to forecast to": (
        ["until=1930"],
        "until=1930: the task of this run has no times to go on in, leave it out",
    ),
    "no batch": (["batch_size=0"], "batch_size must be a whole number, 1 or more, or null, got 0"),
    "no file": (["dataset.path=no.npz"], "dataset.path: there is no file no.npz; give an .npz file"),
    "no npz file": (["dataset.path=run/run.log"], "dataset.path: run/run.log is not a whole .npz file; write it with"),
    "other samples": (
        ["dataset.path=wide.npz"],
        "dataset.path: wide.npz, samples 0 to 3: inputs must be (n, 2), got (4, 3)",
    ),
    "images": (
        ["dataset.path=images.npz"],
        "dataset.path: images.npz, samples 0 to 3: inputs must be (n, 2), got (4, 1, 2, 2)",
    ),
    "another kind": (
        ["dataset.path=bytes.npz"],
        "dataset.path: bytes.npz, samples 0 to 3: inputs must be floating point, in the units that the model was train",
    ),
    "text": (["dataset.path=text.npz"], "dataset.path: text.npz, samples 0 to 3: inputs must be an array of numbers"),
    "no number": (
        ["dataset.path=nan.npz"],
        "dataset.path: nan.npz, samples 0 to 3: inputs holds values that are NaN or infinite in float32",
    ),
    "no inputs": (
        ["dataset.path=labels.npz"],
        "dataset.path: labels.npz, samples 0 to 3: inputs is missing: the model was trained on inputs (n, 2), targets",
    ),
    "unknown arrays": (["dataset.path=x.npz"], "dataset.path: x.npz holds test_inputs, test_targets; allowed are"),
    "unknown labels": (
        ["dataset.path=labelled_7.npz"],
        "dataset.path: labelled_7.npz, samples 0 to 3: targets must be from 0 to 1, the names that there are, got 7",
    ),
    "more of the dataset": (
        ["dataset.path=new.npz", "dataset.normalize=false"],
        "dataset.normalize has no effect with new data (dataset.path=...), which are scaled as the run's own were",
    ),
    "an unknown key": (
        ["model.width=3"],
        "unknown key model.width: node-audit and node-train have model; there are run,",
    ),
    "a key of another solver": (["solver.rtol=1e-3"], "unknown key solver.rtol: solver=adaptive_heun, bosh3, dopri5"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(words, message, predict, folder):
    (folder / "taken_map.png").touch()
    for name, content in {
        "wide": {"inputs": np.zeros((4, 3))},
        "images": {"inputs": np.zeros((4, 1, 2, 2))},
        "bytes": {"inputs": np.zeros((4, 2), np.uint8)},
        "text": {"inputs": np.full((4, 2), "a")},
        "nan": {"inputs": np.full((4, 2), np.nan)},
        "labels": {"targets": np.zeros(4, int)},
        "labelled_7": {"inputs": np.zeros((4, 2)), "targets": np.full(4, 7)},
    }.items():
        np.savez(folder / f"{name}.npz", **content)
    before = sorted(folder.rglob("*"))
    result = predict(*words)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(f"node-predict: {message}")
    assert result.err.count("\n") == 1
    assert sorted(folder.rglob("*")) == before
