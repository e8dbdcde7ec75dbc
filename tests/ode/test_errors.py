"""Errors of the engine advise in arguments, or in the names that a caller has for them."""

import ast
import pickle
import re
from pathlib import Path

import pytest
from parts import make_solver

from node_cli import ode
from node_cli.ode.errors import ArgumentError, Names
from node_cli.ode.gradients.direct import Direct
from node_cli.ode.solution import SolveError, Status

CONFIG = Path(__file__).parents[2] / "configs"
GROUPS = "|".join(path.name for path in CONFIG.iterdir() if path.is_dir())
KEY = re.compile(rf"\b({GROUPS})(\.[a-z_0-9]+)?=[a-z0-9]|\b({GROUPS})\.[a-z_0-9]+(?![\w(])|\bdevice=|=null\b|=true\b")


def texts(path):
    """All text of a file but names that are imported; of an f-string, the parts that stand in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize(
    "text", ["raise solver.rtol", "take gradient=direct", "lower trainer.batch_size", "set it=null", "device=cuda"]
)
def test_a_config_key_is_recognised(text):
    assert KEY.search(text)


def test_no_text_names_a_config_key():
    """But where a file is named, and in an odeint call."""
    found = {
        (path.name, match.group())
        for path in Path(ode.__file__).parent.rglob("*.py")
        for text in texts(path)
        for match in KEY.finditer(re.sub(r"configs/\S+", "", text))
    }
    assert found == set()


def test_a_failed_solve_advises_in_arguments_or_in_the_names_of_a_caller():
    error = SolveError(Status.TOO_MANY_STEPS, 0.5, 12)
    start = "the ODE solve failed at t = 0.5 after 12 evaluations: the steps reached "
    assert str(error) == f"{start}max_steps. Raise it, or raise rtol and atol"
    names = Names("my_", {"max_steps": "the budget"})
    assert error.worded(names) == f"{start}the budget. Raise it, or raise my_rtol and my_atol"


@pytest.mark.parametrize("status", Status)
def test_every_failure_has_its_sentence(status):
    text = str(SolveError(status, 0.0, 1))
    assert not {"{", "}"} & set(re.sub(r'\{"solver": "\w+"\}', "", text))


def test_arguments_that_do_not_go_together_are_a_value_error_in_either_wording():
    with pytest.raises(ValueError) as caught:
        Direct().check(make_solver("scipy"))
    rest = "cannot differentiate a solve by Scipy, which runs outside autograd: take"
    assert str(caught.value) == f'gradient="direct" {rest} gradient="adjoint"'
    assert caught.value.worded(Names("", {})) == f"direct {rest} adjoint"


def test_what_is_put_into_a_message_is_not_read_again():
    assert str(ArgumentError("{rtol} must be a number, got {got}", got="{atol}")) == "rtol must be a number, got {atol}"


@pytest.mark.parametrize("error", [SolveError(Status.NON_FINITE, 1.5, 3, "so; "), ArgumentError("{a} {b}", b=[1])])
def test_another_process_gets_the_same(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
