"""`atol` follows `rtol` unless it is set: in every YAML, on every command line, in what a run recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from node_cli.cli.compose import CommandLine, checked_config, hydra_ready
from node_cli.cli.eval import with_solver_of_run
from node_cli.cli.overrides import parse, texts_of
from node_cli.config import ConfigError
from node_cli.runs.folder import Request, RunFolder
from node_cli.runs.report.grouping import differing_keys
from node_cli.runs.report.reading import RunRecord

pytestmark = pytest.mark.slow

WITH_TOLERANCES = ["dopri5", "tsit5", "bosh3", "dopri8", "adaptive_heun", "torchdiffeq", "scipy"]
COMMANDS = {"train": [], "eval": ["run=x", "solver=dopri5"]}


def composed(command: str, *words: str) -> dict[str, Any]:
    line = CommandLine(command, parse(words))
    with hydra_ready(line):
        return checked_config(line)


@pytest.mark.parametrize("words", [[f"solver={name}"] for name in WITH_TOLERANCES])
def test_the_absolute_tolerance_of_every_solver(words: list[str]):
    solver = composed("train", *words, "solver.rtol=1e-6")["solver"]
    assert (solver["rtol"], solver["atol"]) == (1e-6, 1e-6)


@pytest.mark.parametrize(("command", "more"), COMMANDS.items())
@pytest.mark.parametrize(
    ("words", "rtol", "atol"),
    [
        ([], 1e-3, 1e-3),
        (["solver.atol=1e-9"], 1e-3, 1e-9),
        (["solver.rtol=1e-6", "solver.atol=1e-9"], 1e-6, 1e-9),
    ],
)
def test_an_absolute_tolerance_that_is_set(command: str, more: list[str], words: list[str], rtol: float, atol: float):
    solver = composed(command, *more, *words)["solver"]
    assert (solver["rtol"], solver["atol"]) == (rtol, atol)


@pytest.mark.parametrize(
    ("words", "rtol", "atol"),
    [
        ([], None, None),  # both the solver's
        (["gradient.rtol=1e-5"], 1e-5, 1e-5),
        (["gradient.atol=1e-5"], None, 1e-5),
        (["gradient.rtol=1e-5", "gradient.atol=null"], 1e-5, None),
    ],
)
def test_the_absolute_tolerance_of_the_adjoint(words: list[str], rtol: float | None, atol: float | None):
    gradient = composed("audit", "gradient=adjoint", *words)["gradient"]
    assert (gradient["rtol"], gradient["atol"]) == (rtol, atol)


def test_a_tolerance_for_each_channel_stays():
    assert composed("train", "solver.atol=[1e-3,1e-4]", "solver.rtol=1e-5")["solver"]["atol"] == [1e-3, 1e-4]


def test_a_sweep_over_rtol_differs_in_rtol_alone():
    def runs(*words: list[str]) -> list[RunRecord]:
        summaries = [{"config": composed("train", *each), "choices": {"solver": "dopri5"}} for each in words]
        return [RunRecord(Path(str(number)), "finished", "", summary) for number, summary in enumerate(summaries)]

    assert differing_keys(runs(["solver.rtol=1e-2"], ["solver.rtol=1e-4"])) == ["solver.rtol"]
    both = runs(["solver.rtol=1e-2"], ["solver.rtol=1e-4", "solver.atol=1e-6"])
    assert differing_keys(both) == ["solver.rtol", "solver.atol"]


def expanded(*words: str) -> list[str]:
    """The overrides that are meant, as text."""
    return texts_of(with_solver_of_run(parse(words)))


def recorded(path: Path, *words: str, **changes: Any) -> None:
    """A run that was begun with `words`."""
    config = composed("train", *words)
    config["solver"] |= changes
    solver = next((word.partition("=")[2] for word in words if word.startswith("solver=")), "dopri5")
    path.mkdir()
    RunFolder(path).write_request(Request(config, list(words), {"solver": solver}))


@pytest.mark.parametrize(
    ("begun", "typed", "expected"),
    [
        ([], ["solver.rtol=1e-6"], {"rtol": 1e-6, "atol": 1e-6}),
        (["solver.atol=1e-5"], ["solver.rtol=1e-6"], {"rtol": 1e-6, "atol": 1e-5}),
        (["solver.rtol=1e-2"], ["solver.max_nfe=77"], {"rtol": 1e-2, "atol": 1e-2, "max_nfe": 77}),
        (
            ["solver=tsit5", "solver.norm=max", "solver.max_step=0.5", "solver.atol=[1e-3,1e-4]"],
            ["solver.rtol=1e-6"],
            {"method": "tsit5", "norm": "max", "max_step": 0.5, "rtol": 1e-6, "atol": [1e-3, 1e-4]},
        ),
        (["model=rknet", "solver=rk4", "solver.num_steps=3"], ["solver.num_steps=9"], {"num_steps": 9}),
    ],
)
def test_a_key_of_the_runs_own_solver(
    tmp_path: Path, begun: list[str], typed: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    recorded(Path("mine"), *begun)
    was = yaml.safe_load(Path("mine/.hydra/config.yaml").read_text())["solver"]
    now = composed("eval", *expanded("run='mine'", *typed))["solver"]
    assert now == was | expected


def test_what_an_experiment_set_is_the_runs_own_too(tmp_path: Path):
    """It is not among the words that were typed."""
    recorded(tmp_path / "mine", safety=0.5, first_step="chosen")
    now = composed("eval", *expanded(f"run={tmp_path / 'mine'}", "solver.rtol=1e-6"))["solver"]
    assert (now["safety"], now["first_step"], now["atol"]) == (0.5, "chosen", 1e-6)


def test_another_solver_takes_nothing_over():
    words = ["run=nowhere", "solver=rk4", "solver.num_steps=20"]
    assert expanded(*words) == words


def test_a_recorded_solver_refers_to_nothing(tmp_path: Path):
    recorded(tmp_path / "mine", norm="${oc.env:HOME}")
    with pytest.raises(ConfigError, match="was not recorded in plain words: choose one too, solver=NAME"):
        expanded(f"run={tmp_path / 'mine'}", "solver.rtol=1e-6")
