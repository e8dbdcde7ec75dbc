"""`init_from`, `init_skip` and `trainer.freeze`, typed: what a run starts from, and that it goes on without that."""

import shutil
from functools import partial

import pytest
import torch

from node_cli.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

SMALL = [
    *("model=odenet_mlp", "model.width=4", "model.num_hidden_layers=1", "solver=rk4", "solver.num_steps=1"),
    *("scheduler=constant", "num_threads=1", "device=cpu", "logger=jsonl", "trainer.batch_size=32"),
]
MOONS = [*SMALL, "dataset=moons", "dataset.num_samples=100", "trainer.epochs=1"]
ARMS = [*SMALL, "dataset=arms", "dataset.num_samples=150", "dataset.num_classes=3"]
TRANSFER = [*ARMS, "init_from=theirs", "init_skip=[head]", "trainer.freeze=[blocks.0.vector_field.hidden]"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory, typed_in):
    folder = tmp_path_factory.mktemp("runs")
    typed_in(folder, "node-train", *MOONS, "run_dir=theirs")
    return folder / "theirs"


@pytest.fixture
def train(typed, theirs, tmp_path):
    shutil.copytree(theirs, tmp_path / "theirs")
    return partial(typed, "node-train")


def weights(run, name="last"):
    return read_checkpoint(run / "checkpoints" / f"{name}.pt")["model"]


def test_a_run_starts_from_the_best_weights_of_another_and_goes_on_without_it(train, tmp_path):
    result = train(*TRANSFER, "run_dir=whole", "trainer.epochs=2")
    assert (result.status, result.err) == (0, "")
    assert "starting from the weights in theirs/checkpoints/best.pt, but for head" in result.out
    assert "not trained: blocks.0.vector_field.hidden (16 parameters)" in result.out

    assert train(*TRANSFER, "run_dir=run", "trainer.epochs=1").status == 0
    (tmp_path / "theirs").rename(tmp_path / "gone")
    result = train("resume=run", "trainer.epochs=2")
    assert (result.status, result.err) == (0, "")
    assert "starting from" not in result.out
    assert "not trained: blocks.0.vector_field.hidden" in result.out

    source, whole, resumed = weights(tmp_path / "gone", "best"), *(weights(tmp_path / run) for run in ("whole", "run"))
    assert all(torch.equal(weight, resumed[name]) for name, weight in whole.items())
    frozen = [name for name in whole if name.startswith("blocks.0.vector_field.hidden.")]
    assert len(frozen) == 3
    assert all(torch.equal(source[name], whole[name]) for name in frozen)
    assert not torch.equal(source["blocks.0.vector_field.output.weight"], whole["blocks.0.vector_field.output.weight"])
    assert source["head.weight"].shape == (2, 2)
    assert whole["head.weight"].shape == (3, 2)


MISTAKES = {
    "no run there": (["init_from=nothing"], "init_from: no checkpoint at nothing/checkpoints/best.pt"),
    "other shapes": (
        ["init_from=theirs"],
        (
            "init_from: the weights in theirs/checkpoints/best.pt do not fit this model: head.weight is (2, 2) there "
            "and (3, 2) here, head.bias is (2,) there and (3,) here; list the parts that are to start anew: "
            "'init_skip=[head]'"
        ),
    ),
    "another model": (
        ["init_from=theirs", "init_skip=[head]", "model.num_blocks=2"],
        "init_from: the weights in theirs/checkpoints/best.pt do not fit this model: blocks.1.vector_field.hidden.0.",
    ),
    "an unknown part": (
        ["init_from=theirs", "init_skip=[tail]"],
        "init_skip must name parts of the model, got 'tail': there are blocks, head, and what they hold, such as blo",
    ),
    "no list": (["init_from=theirs", "init_skip=head"], "init_skip must be a list of different names, such as [head]"),
    "skipped without a source": (
        ["init_skip=[head]"],
        "init_skip=['head'] has no effect without init_from: set init_from=... too",
    ),
    "no path": (["init_from=3"], "init_from must be a run folder, a checkpoint file or null, got 3"),
    "an unknown frozen part": (
        ["trainer.freeze=[stem]"],
        "trainer.freeze must name parts of the model, got 'stem': there are blocks, head, augment, and what they hold",
    ),
    "all frozen": (["trainer.freeze=[blocks,head]"], "trainer.freeze must leave something to train, got blocks, head,"),
    "frozen by a text": (["trainer.freeze=blocks"], "trainer.freeze must be a list, got 'blocks' (text)"),
}


@pytest.mark.parametrize(("typed_words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(typed_words, message, train, tmp_path):
    result = train(*ARMS, *typed_words, "run_dir=run")
    assert result.status == 2
    assert result.err.startswith(f"node-train: {message}")
    assert result.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_what_a_run_started_from_stays_as_it_was(train):
    assert train(*TRANSFER, "run_dir=run", "trainer.epochs=1").status == 0
    for change, message in (
        ("init_from=other", "init_from: theirs -> other"),
        ("trainer.freeze=[]", "trainer.freeze: ['blocks.0.vector_field.hidden'] -> []"),
    ):
        result = train("resume=run", change)
        assert result.status == 2
        assert f"run was trained with other settings ({message})" in result.err
