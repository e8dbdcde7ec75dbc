"""Every case of `make bench` at a small size, in one round, and one contender in a process of its own."""

import gc
import json

import pytest
import torch

from benchmarks.engine import measure, own_times, plot
from benchmarks.engine import run as engine_run
from benchmarks.engine.alone import environment, measured
from benchmarks.engine.cases import CASES
from benchmarks.engine.contender import Mode
from benchmarks.engine.run import markdown, run
from node_cli.ode.compilation import MODES

pytestmark = pytest.mark.slow

EAGER = r"^(?!diffrax)[^,]*, direct(, carried)?$"  # diffrax compiles for seconds


@pytest.fixture(autouse=True)
def _shortest(monkeypatch):
    monkeypatch.setattr(measure, "WARMUP_ROUNDS", 1)
    monkeypatch.setattr(measure, "MOST_REPEATS", 1)
    monkeypatch.setattr(engine_run, "NUM_BATCHES", 1)  # to count evaluations of
    monkeypatch.setattr(own_times, "NUM_TIMES", 12)
    monkeypatch.setattr(gc, "unfreeze", lambda: None)  # or each collection looks at all that the tests have imported


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name].device == "cpu" or torch.cuda.is_available()])
def test_all_agree_on_a_case(name):
    result = run(name, 1, batch=2, only=EAGER, processes=False)
    rows = {(row["solver"], row["network"]): row for row in result["rows"]}
    for row in rows.values():
        assert row["solution_error"] < 0.02, row
        assert row["gradient_error"] < 0.3, row
        assert row["seconds"]["median"] > 0
        assert row["nfe_forward"] > 5
    peer = CASES[name].peers["direct"]
    assert rows.pop((peer.solver, peer.network))["times_peer"]["median"] == 1
    assert rows
    assert len(markdown(result).splitlines()) == 4 + len(result["rows"])
    if name in plot.SHOWN:
        assert plot.draw({name: json.loads(json.dumps(result))}).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["spiral", "mnist"])
def test_ours_takes_part_in_every_mode(name):
    ours = [mode for mode, _ in CASES[name].entries(2) if mode.solver == "ours" and mode.first_step == "carried"]
    modes = {(mode.compile, mode.gradient) for mode in ours}
    assert modes == {(c, g) for c in MODES for g in ("direct", "checkpoint", "adjoint")}


def test_a_process_of_its_own_tells_the_peak_memory(tmp_path, monkeypatch):
    for key, value in environment(1, tmp_path).items():
        monkeypatch.setenv(key, value)
    (tmp_path / "torch").mkdir()
    found = measured("ffjord", 512, Mode("torchdiffeq", "direct"))
    state = 512 * 3 * 4
    assert 100 * state < found["peak_bytes"] < 10_000 * state  # 20 evaluations with 17 tensors of 64 or 128 a point
    assert found.keys() == {"peak_bytes"}
