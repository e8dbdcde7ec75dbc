"""A run goes on, and is evaluated and audited, with the config and the data that it was trained with, or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from node_cli.datasets.digest import exact_digest, rough_digest
from node_cli.training.checkpoint import read_checkpoint, write_checkpoint

pytestmark = pytest.mark.slow

WORDS = [
    *("dataset=npz", "dataset.path=x.npz", "model=odenet_mlp", "model.width=4", "solver=rk4", "num_threads=1"),
    *("device=cpu", "logger=jsonl", "trainer.epochs=2", "run_dir=run"),
]


def write_points(path, seed=0):
    rng = np.random.default_rng(seed)
    targets = np.arange(60) % 2
    inputs = (rng.normal(size=(60, 2)) + 3 * targets[:, None]).astype("f4")
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, inputs=inputs, targets=targets)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, typed_in):
    folder = tmp_path_factory.mktemp("trained")
    write_points(folder / "x.npz")
    typed_in(folder, "node-train", *WORDS)
    return folder


@pytest.fixture
def folder(trained, tmp_path, typed):
    """The working folder, with the data and the run; `.hydra/origin.yaml` says that the run was started here."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / "run" / ".hydra" / "origin.yaml").write_text(f"{tmp_path}\n")
    return tmp_path


RESUME, EVAL = ["node-train", "resume=run", "trainer.epochs=3"], ["node-eval", "run=run"]
AUDIT = ["node-audit", "run=run", "gradients=[direct]", "problem.batch_size=4", "logger=none"]
COMMANDS = {"resume": RESUME, "eval": EVAL, "audit": AUDIT}


def mistakes(result):
    """What stands on stderr but for how far an audit is."""
    return [line for line in result.err.splitlines() if not line.startswith("measurement ")]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_other_data_in_the_same_place_are_refused(command, folder, typed):
    write_points(folder / "x.npz", seed=1)
    before = (folder / "run" / "checkpoints" / "last.pt").read_bytes()
    result = typed(*command)
    assert result.status == 2
    assert "was trained with other data than dataset=npz path=" in result.err
    assert len(mistakes(result)) == 1
    assert (folder / "run" / "checkpoints" / "last.pt").read_bytes() == before


@pytest.mark.parametrize("command", [EVAL, AUDIT], ids=["eval", "audit"])
def test_a_changed_digit_of_the_recorded_config_is_refused(command, folder, typed):
    config = folder / "run" / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("t1: 1.0", "t1: 1.1"))
    result = typed(*command)
    assert result.status == 2
    assert "was trained with another config than this run has (model.t1: 1.0 -> 1.1)" in result.err


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_from_another_folder_the_data_of_the_run_are_read(command, folder, typed, monkeypatch):
    """Though the same relative path is another file there."""
    write_points(folder / "other" / "x.npz", seed=1)
    shutil.move(folder / "run", folder / "other" / "run")
    monkeypatch.chdir(folder / "other")
    result = typed(*command)
    assert (result.status, mistakes(result)) == (0, [])
    assert f"dataset.path: the data are read from {folder}/x.npz now, not from x.npz" in result.out


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_moved_data_are_named_and_must_be_the_same(command, folder, typed):
    (folder / "moved").mkdir()
    (folder / "x.npz").rename(folder / "moved" / "y.npz")
    assert "there is no file" in typed(*command).err
    result = typed(*command, "dataset.path=moved/y.npz")
    assert (result.status, mistakes(result)) == (0, [])
    assert "dataset.path: the data are read from moved/y.npz now, not from x.npz" in result.out
    write_points(folder / "moved" / "y.npz", seed=2)
    assert "was trained with other data" in typed(*command, "dataset.path=moved/y.npz").err


def test_a_run_that_was_continued_with_moved_data_knows_where_they_are(folder, typed, monkeypatch):
    (folder / "moved").mkdir()
    (folder / "x.npz").rename(folder / "moved" / "y.npz")
    monkeypatch.chdir(folder / "moved")
    assert typed("node-train", "resume=../run", "trainer.epochs=3", "dataset.path=y.npz").status == 0
    monkeypatch.chdir(folder)
    result = typed("node-train", "resume=run", "trainer.epochs=4")
    assert (result.status, result.err) == (0, "")
    assert f"the data are read from {folder}/moved/y.npz now, not from y.npz" in result.out


@pytest.mark.parametrize(
    "words", [["dataset=moons"], ["dataset.flip=true"], ["dataset.path=x.npz", "dataset.flip=true"]]
)
@pytest.mark.parametrize("command", [EVAL, AUDIT], ids=["eval", "audit"])
def test_nothing_else_of_the_dataset_can_be_set(command, words, folder, typed):
    result = typed(*command, *words)
    assert result.status == 2
    assert result.err == (
        f"{command[0]}: {words[-1].partition('=')[0]} has no effect with run=..., which brings its own: of its dataset "
        "only dataset.path and dataset.data_dir can be set, where its data were moved\n"
    )


def as_of_an_earlier_version(run):
    (run / ".hydra" / "origin.yaml").unlink()
    for path in (run / "checkpoints").glob("*.pt"):
        payload = read_checkpoint(path)
        path.unlink()
        write_checkpoint(path, {key: value for key, value in payload.items() if key != "run"})


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_run_of_an_earlier_version_is_taken_with_a_word(command, folder, typed):
    as_of_an_earlier_version(folder / "run")
    result = typed(*command)
    assert (result.status, mistakes(result)) == (0, [])
    assert result.out.count("was written by a version that recorded neither its config nor its data in it") == 1


def test_a_run_of_an_earlier_version_cannot_move_its_data(folder, typed):
    as_of_an_earlier_version(folder / "run")
    (folder / "x.npz").rename(folder / "y.npz")
    result = typed(*RESUME, "dataset.path=y.npz")
    assert result.status == 2
    assert result.err.endswith("cannot be told, so dataset.path must stay as it was\n")


def test_the_digest_stands_in_summary_and_checkpoint(folder):
    digest = json.loads((folder / "run" / "summary.json").read_text())["data"]["sha256"]
    known = read_checkpoint(folder / "run" / "checkpoints" / "best.pt")["run"]
    assert (known["data"], known["config"]["dataset"]["path"]) == (digest, "x.npz")


def splits(inputs, targets=(0, 1, 0)):
    return {
        "train": {"inputs": torch.as_tensor(inputs), "targets": torch.tensor(targets)},
        "val": {"inputs": torch.zeros(0, 2), "targets": torch.zeros(0)},
    }


def test_a_digest_sees_every_bit_of_what_was_read():
    inputs = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    nearly = inputs.clone()
    nearly[1, 1] = torch.nextafter(nearly[1, 1], torch.tensor(9.0))
    others = [nearly, inputs.flip(0), inputs.double(), inputs.reshape(2, 3), inputs[:2]]
    digests = {exact_digest(splits(each)) for each in [inputs, *others]}
    assert len(digests) == 6
    assert exact_digest(splits(inputs)) == exact_digest(splits(inputs.T.contiguous().T))
    assert exact_digest(splits(inputs, (0, 1, 1))) not in digests


def test_a_digest_of_what_was_computed_bears_another_last_bit_and_no_more():
    inputs = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    own = rough_digest(splits(inputs))
    assert rough_digest(splits(torch.nextafter(inputs, inputs + 1))) == own
    for other in (inputs * 1.001, inputs.flip(0), inputs + 0.001, inputs[:999], inputs.double(), -inputs):
        assert rough_digest(splits(other)) != own
    assert rough_digest(splits(inputs, (0, 1, 1))) != own
    gone = inputs.clone()
    gone[3, 1] = torch.nan
    assert rough_digest(splits(gone)) not in (own, rough_digest(splits(gone.nan_to_num(1.0))))


def test_generated_data_need_no_file(typed, tmp_path):
    words = ["dataset=moons", *WORDS[2:]]
    assert typed("node-train", *words).status == 0
    config = Path("run/.hydra/config.yaml")
    config.write_text(config.read_text().replace("noise: 0.1", "noise: 0.2"))
    result = typed("node-eval", "run=run")
    assert result.status == 2
    assert "(dataset.noise: 0.1 -> 0.2)" in result.err
