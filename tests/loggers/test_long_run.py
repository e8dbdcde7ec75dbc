"""A short version of the long run that benchmarks/long_run.py makes."""

import json

import pytest

pytestmark = pytest.mark.slow

SMALL = ["dataset=moons", "model=odenet_mlp", "model.width=4", "solver=euler", "trainer.batch_size=16"]
SMALL += ["trainer.epochs=null", "trainer.max_steps=600", "trainer.figures_every_epochs=0"]
SMALL += ["num_threads=1", "device=cpu"]


@pytest.fixture(scope="module")
def figures(begin, tmp_path_factory):
    folder = tmp_path_factory.mktemp("long_run")
    process = begin(folder, "benchmarks.long_run", "--mark", "100", "--out", "figures.json", *SMALL)
    said, error = process.communicate()
    assert process.returncode == 0, error
    return json.loads((folder / "figures.json").read_text()) | {"said": said}


def test_memory_does_not_grow(figures):
    memory = {mark["step"]: mark["memory, MB"] for mark in figures["marks"]}
    assert list(memory) == [100, 200, 300, 400, 500, 600]
    assert memory[600] - memory[200] < 2


@pytest.mark.parametrize("name", ["metrics.jsonl", "events", "run.log"])
def test_files_grow_linearly(name, figures):
    sizes = {mark["step"]: mark[name] for mark in figures["marks"]}
    assert sizes[600] - sizes[400] == pytest.approx(sizes[400] - sizes[200], rel=0.2)
    assert sizes[400] > sizes[200] > 0


def test_the_report_has_a_row_for_each_mark_and_a_share_for_each_cost(figures):
    rows = [line for line in figures["said"].splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 6
    assert figures["share"] == pytest.approx(sum(figures["shares"].values()))
    assert all(share > 0 for share in figures["shares"].values())
    assert f"saving and logging: {figures['share']:.2%} of the updates" in figures["said"]
