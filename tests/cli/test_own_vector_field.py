"""`vector_field=...`: one file and one YAML in the slot of an ODE-Net."""

import pytest

from node_cli.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow

FIELD = """
from torch import nn


class Shear(nn.Module):
    def __init__(self, channels, bias):
        super().__init__()
        self.linear = nn.Linear(channels, channels, bias=bias)

    def forward(self, t, y):
        return t * self.linear(y)


def function(channels):
    return 3
"""
QUICK = ["trainer.max_steps=2", "num_threads=1", "device=cpu", "logger=jsonl", "solver=rk4", "solver.num_steps=1"]
POINTS = [*QUICK, "dataset=moons", "dataset.num_samples=60", "model=odenet_mlp", "model.num_blocks=2"]
OWN = ["--config-dir", "mine", "packages=[fields]"]


@pytest.fixture
def train(typed, tmp_path):
    (tmp_path / "fields.py").write_text(FIELD)
    (tmp_path / "mine" / "vector_field").mkdir(parents=True)
    for name, target, keys in (("shear", "Shear", "bias: false\n"), ("odd", "function", "")):
        text = f"_target_: fields.{target}\n_partial_: true\n{keys}"
        (tmp_path / "mine" / "vector_field" / f"{name}.yaml").write_text(text)
    return lambda *words: typed("node-train", *words)


def test_a_field_of_ones_own_is_trained_evaluated_and_audited(train, typed, tmp_path):
    result = train(*OWN, *POINTS, "vector_field=shear", "vector_field.bias=true", "run_dir=run", "model.augment_dim=1")
    assert (result.status, result.err) == (0, "")
    weights = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["model"]
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items() if "vector_field" in name}
    assert shapes == {
        f"blocks.{n}.vector_field.linear.{part}": shape
        for n in (0, 1)
        for part, shape in (("weight", (3, 3)), ("bias", (3,)))
    }
    for program, *words in (
        ("node-eval",),
        ("node-predict", "figures=false"),
        ("node-audit", "gradients=[direct]", "problem.batch_size=4", "logger=none"),
    ):
        result = typed(program, "run=run", "packages=[fields]", "num_threads=1", "device=cpu", *words)
        assert result.status == 0, result.err
    result = typed("node-audit", "run=run", "packages=[fields]", "vector_field=concat_squash")
    assert result.err == "node-audit: vector_field has no effect with run=..., which brings its own\n"


def test_a_shipped_field_goes_where_it_fits(train, tmp_path):
    result = train(*POINTS, "vector_field=concat_squash", "vector_field.width=4", "run_dir=run")
    assert (result.status, result.err) == (0, "")
    weights = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["model"]
    assert weights["blocks.1.vector_field.layers.0.gate.weight"].shape == (4, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["model=resnet", "vector_field=concat_squash"],
            "vector_field: node_cli.models.resnet.ResNet has no slot for one: leave it out, or take model=odenet,",
        ),
        (
            ["vector_field=concat_squash"],
            "vector_field: points (d,) are needed, the dataset has samples of shape (1, 8, 8)",
        ),
        ([*OWN, "vector_field=odd"], "vector_field: fields.function must give a torch.nn.modules.module.Module, and"),
        (["vector_field=mlp"], "vector_field=mlp does not exist: there are concat_squash"),
        (["vector_field.width=3"], "vector_field.width is set, but no vector_field: choose one, vector_field=NAME"),
        (
            ["--config-dir", "mine", "vector_field=shear"],
            "vector_field._target_=fields.Shear is not allowed: a vector_field is what configs/vector_field/ names,",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_one_line(words, message, train, tmp_path):
    result = train(*words, *QUICK, "run_dir=run")
    assert result.status == 2
    assert result.err.startswith(f"node-train: {message}"), result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "run").exists()
