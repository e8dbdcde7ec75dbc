"""The advice of the engine names keys where a command prints it."""

import re
from pathlib import Path

import pytest
import yaml

from node_cli.advice import KEYS, in_keys
from node_cli.ode.errors import ARGUMENTS, ArgumentError
from node_cli.ode.solution import SolveError, Status

CONFIGS = Path(__file__).parents[1] / "configs"


def test_a_failed_solve_is_worded_in_keys():
    told = in_keys(SolveError(Status.TOO_MANY_EVALUATIONS, 0.5, 12))
    assert told.endswith(
        "reached solver.max_nfe. Raise it, or raise solver.rtol and solver.atol, or take a fixed-step "
        "method (solver=rk4)"
    )
    assert in_keys(ArgumentError("{adjoint_rtol} needs {adjoint}")) == "gradient.rtol needs gradient=adjoint"
    assert in_keys(ValueError("{as} it is")) == "{as} it is"


def test_every_argument_that_has_a_wording_has_keys():
    assert set(ARGUMENTS) <= set(KEYS)


@pytest.mark.parametrize("status", Status)
def test_the_keys_exist(status):
    for group, key, value in re.findall(r"\b([a-z]+)(?:\.([a-z_0-9]+))?(?:=(\w+))?", in_keys(SolveError(status, 0, 1))):
        files = list((CONFIGS / group).glob("*.yaml")) if group else []
        if key:
            assert any(key in yaml.safe_load(file.read_text()) for file in files), (group, key)
        elif value:
            assert value in {file.stem for file in files}, (group, value)
