"""Mistakes with densities: one line, exit status 2, and nothing written, before anything is trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

MOONS = ["dataset=moons", "dataset.num_samples=60"]

# What is typed after node-train task=density, and the line that answers, or its beginning.
MISTAKES = {
    "an unknown objective": (
        ["task.objective=score"],
        "task.objective must be one of flow_matching, likelihood, got score",
    ),
    "an unknown coupling": (
        ["task.coupling=sinkhorn"],
        "task.coupling must be one of independent, ot, conditional_ot, got sinkhorn",
    ),
    "a coupling of likelihood": (
        ["task.objective=likelihood", "task.coupling=ot"],
        "task.coupling='ot' has no effect with task.objective=likelihood: set task.objective=flow_matching, or leave",
    ),
    "a penalty of flow matching": (
        [*MOONS, "task.kinetic=0.1"],
        "task.kinetic=0.1 has no effect with task.objective=flow_matching: set task.objective=likelihood, or leave it",
    ),
    "probes of an exact trace": (
        [*MOONS, "task.objective=likelihood", "task.trace=exact", "task.num_probes=3"],
        "task.num_probes=3 has no effect with task.trace=exact: set task.trace=hutchinson, or leave it out",
    ),
    "one probe, whose error nobody knows": ([*MOONS, "task.eval_probes=1"], "task.eval_probes must be at least 2, got"),
    "logits of real numbers": (
        [*MOONS, "task.logit=0.01"],
        "task.logit=0.01 has no effect on values that are real numbers: take images of whole numbers, or leave it out",
    ),
    "too large an alpha": (["task.logit=0.7"], "task.logit must be above 0 and below 0.5, or null, got 0.7"),
    "a base that moves beyond the first block": (
        [*MOONS, "task.objective=likelihood", "task.steer=0.6", "model.num_blocks=2"],
        "task.steer must be below 0.5, the time of the first of 2 blocks, got 0.6",
    ),
    "no labels": (
        ["dataset=npz", "dataset.path=points.npz", "task.condition=label"],
        "task.condition=label needs a dataset with labels, which this one has not: set it to null",
    ),
    "an optimal transport of no condition": (
        [*MOONS, "task.coupling=conditional_ot"],
        "task.coupling=conditional_ot needs task.condition=label: take task.coupling=ot instead",
    ),
    "images that are shifted": (
        ["dataset.crop_padding=1"],
        "task=density needs images as they are: set dataset.crop_padding=0 and dataset.flip=false",
    ),
    "an image network for points": (
        [*MOONS, "model.network=unet"],
        "model.network=unet needs images (c, h, w) of at least 4 x 4 pixels, the dataset has samples of shape (2,)",
    ),
    "a likelihood of a source": (
        ["dataset=eight_gaussians_to_moons", "task.objective=likelihood"],
        "task.objective must be flow_matching on a dataset with a source, got likelihood",
    ),
    "a tolerance for each channel": ([*MOONS, "solver.atol=[1e-3,1e-3]"], "solver.atol must be one number: the state"),
    "a model of classes": (
        [*MOONS, "model=odenet_mlp"],
        "model: node_cli.models.odenet_mlp.OdeNetMlp needs num_outputs, which neither its YAML nor the dataset nor",
    ),
    "a series": (
        ["dataset=lynx_hare"],
        "task: node_cli.tasks.density.Density needs input_shape, which neither its YAML nor the dataset gives",
    ),
    "a field that is not given the label": (
        [*MOONS, "vector_field=concat_squash", "task.condition=label"],
        "model: vector_field must be null with task.condition=label: it is not given the label",
    ),
}


@pytest.mark.parametrize(("words", "line"), MISTAKES.values(), ids=MISTAKES)
def test_one_line_status_2_nothing_written(typed, tmp_path: Path, words: list[str], line: str):
    if "dataset=npz" in words:
        np.savez(tmp_path / "points.npz", inputs=np.random.default_rng(0).normal(size=(40, 2)).astype("f"))
    before = set(tmp_path.iterdir())
    result = typed("node-train", "task=density", "num_threads=1", "device=cpu", "trainer.epochs=1", *words)
    assert result.err.startswith(f"node-train: {line}")
    assert (result.err.count("\n"), result.status, result.out) == (1, 2, "")
    assert set(tmp_path.iterdir()) == before
