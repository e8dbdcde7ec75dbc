"""Every key of a solver is checked when it is made, and refused in the user's words."""

import inspect
import math

import pytest
import torch
from hydra.utils import get_class
from parts import ADAPTIVE, FIXED, ONE_STEP, load, make_solver, names
from problems import times

EXCLUDE = "num_steps and step_size exclude each other, got num_steps={} step_size={}: set exactly one of them"
PAIRS = "midpoint, heun, ralston, bosh3, dopri5, tsit5, dopri8"
ALL = "euler, midpoint, heun, ralston, rk4, rk4_38, bosh3, dopri5, tsit5, dopri8"
REFUSED = [
    ("dopri5", "method", "rk4", f"method must be one of {PAIRS}, got rk4"),
    ("dopri5", "rtol", -1.0, "rtol must be 0 or more, got -1.0"),
    ("dopri5", "rtol", math.nan, "rtol must be 0 or more, got nan"),
    ("dopri5", "atol", -1e-3, "atol must be 0 or more, got -0.001"),
    ("dopri5", "atol", [1e-3, -1.0], "atol must be 0 or more, got [0.001, -1.0]"),
    ("dopri5", "norm", "l2", "norm must be one of rms, max, got l2"),
    ("dopri5", "first_step", 0.0, "first_step must be positive, got 0.0"),
    ("dopri5", "first_step", "last", "first_step must be a number or one of chosen, carried, got last"),
    ("dopri5", "min_step", -0.1, "min_step must be 0 or more, got -0.1"),
    ("dopri5", "max_step", 0.0, "max_step must be positive, got 0.0"),
    ("dopri5", "safety", 1.0, "safety must be between 0 and 1, got 1.0"),
    ("dopri5", "ifactor", 1.0, "ifactor must be more than 1, got 1.0"),
    ("dopri5", "dfactor", 1.5, "dfactor must be between 0 and 1, got 1.5"),
    ("dopri5", "icoeff", 0.0, "icoeff must be positive, got 0.0"),
    ("dopri5", "max_steps", 0, "max_steps must be positive, got 0"),
    ("dopri5", "max_nfe", -1, "max_nfe must be positive, got -1"),
    ("dopri5", "outputs", "dense", "outputs must be one of interpolate, step, got dense"),
    ("dopri5", "batching", "single", "batching must be one of joint, per_sample, got single"),
    ("dopri5", "compile", "all", "compile must be one of none, vector_field, step, solve, auto, got all"),
    ("dopri5", "on_failure", "ignore", "on_failure must be one of raise, skip_batch, fallback, got ignore"),
    ("rk4", "fallback_steps", 0, "fallback_steps must be positive, got 0"),
    ("rk4", "method", "rk5", f"method must be one of {ALL}, got rk5"),
    ("rk4", "num_steps", 0, "num_steps must be positive, got 0"),
    ("rk4", "num_steps", None, EXCLUDE.format(None, None)),
    ("rk4", "step_size", 0.1, EXCLUDE.format(4, 0.1)),
    ("rk4", "max_nfe", 0, "max_nfe must be positive, got 0"),
]
FOR_ODEINT = {"accepts_min_step", "own_options", "passes_outputs"}  # what no config can say
FIELD_SHAPES = "the vector field must return the shape of the state, (2, 3), got {}"


def message(name, **keys):
    with pytest.raises(ValueError) as error:
        _made(name, **keys)
    return str(error.value)


def _made(name, **keys):
    config = {**load("solver", name), **keys}
    return get_class(config.pop("_target_"))(**config)


@pytest.mark.parametrize(("name", "key", "value", "expected"), REFUSED)
def test_refuses_a_value_out_of_range(name, key, value, expected):
    assert message(name, **{key: value}) == expected


def test_step_size_must_be_positive():
    assert message("rk4", num_steps=None, step_size=-0.1) == "step_size must be positive, got -0.1"


def test_max_step_must_exceed_min_step():
    assert message("dopri5", min_step=0.2, max_step=0.1) == "max_step must exceed min_step, got 0.1"


def test_steps_of_each_sample_are_not_shared_by_processes():
    expected = "batching must be joint with sync_steps (a sample's own steps depend on no other), got per_sample"
    assert message("dopri5", sync_steps=True, batching="per_sample") == expected


@pytest.mark.parametrize("name", names("solver"))
def test_yaml_holds_every_key_and_python_no_default(name):
    config = load("solver", name)
    parameters = inspect.signature(get_class(config._target_)).parameters
    without_default = {key for key, value in parameters.items() if value.default is inspect.Parameter.empty}
    assert set(config) - {"_target_"} == without_default
    assert set(parameters) - without_default <= FOR_ODEINT


def test_a_solver_and_its_yaml_have_one_name():
    own = {"adaptive_heun": "heun"}  # Heun's method in fixed steps has its name
    assert {name: load("solver", name).method for name in ADAPTIVE + FIXED} == {
        name: own.get(name, name) for name in ADAPTIVE + FIXED
    }


@pytest.mark.parametrize("name", ADAPTIVE)
def test_every_adaptive_yaml_says_the_same_but_for_its_method(name):
    assert {**load("solver", name), "method": "", "outputs": ""} == {
        **load("solver", "dopri5"),
        "method": "",
        "outputs": "",
    }


@pytest.mark.parametrize("name", FIXED)
def test_every_fixed_yaml_says_the_same_but_for_its_method(name):
    assert {**load("solver", name), "method": ""} == {**load("solver", "rk4"), "method": ""}


def test_one_step_is_the_midpoint_method_again():
    assert load("solver", ONE_STEP) == {**load("solver", "midpoint"), "num_steps": 1}


def test_with_tolerances_changes_these_alone():
    solver = make_solver("dopri5")
    assert solver.with_tolerances(None, None) == solver
    assert solver.with_tolerances(1e-5, None) == make_solver("dopri5", rtol=1e-5)
    assert solver.with_tolerances(1e-5, 1e-7) == make_solver("dopri5", rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match=r"^rtol must be 0 or more, got -1\.0$"):
        solver.with_tolerances(-1.0, None)


# States and vector fields


BATCHINGS = [("dopri5", {}), ("rk4", {}), ("dopri5", {"batching": "per_sample"})]  # what all methods share


@pytest.mark.parametrize(("name", "keys"), BATCHINGS)
@pytest.mark.parametrize(
    ("y0", "expected"),
    [
        (torch.ones(2).half(), "y0 must be float32 or float64, got torch.float16: convert it with .float()"),
        (torch.ones(2).bfloat16(), "y0 must be float32 or float64, got torch.bfloat16: convert it with .float()"),
        (torch.ones(2).long(), "y0 must be float32 or float64, got torch.int64: convert it with .float()"),
        (
            torch.ones(2).to(torch.complex128),
            "y0 must be real, got torch.complex128: solve for its real and imaginary parts (torch.view_as_real)",
        ),
        (torch.ones(0, 3), "y0 must not be empty, got shape [(0, 3)]"),
        ((torch.ones(2), torch.ones(2, 0)), "y0 must not be empty, got shape [(2,), (2, 0)]"),
        ((), "y0 must not be empty, got shape []"),
        (
            (torch.ones(2), torch.ones(2).double()),
            (
                "the parts of y0 must share dtype and device, got [(torch.float32, device(type='cpu')), "
                "(torch.float64, device(type='cpu'))]"
            ),
        ),
    ],
)
def test_refuses_states_that_no_solve_can_start_from(name, keys, y0, expected):
    def never(t, y):
        raise AssertionError("evaluated")

    with pytest.raises(ValueError) as error:
        make_solver(name, **keys).integrate(never, y0, times(0, 1))
    assert str(error.value) == expected


@pytest.mark.parametrize(("name", "keys"), BATCHINGS)
@pytest.mark.parametrize("shape", [(1, 3), (2, 1), (3,), (), (2, 3, 1)])
def test_refuses_a_vector_field_that_returns_another_shape(name, keys, shape):
    with pytest.raises(ValueError) as error:
        make_solver(name, **keys).integrate(lambda t, y: y.new_ones(shape), torch.ones(2, 3), times(0, 1))
    assert str(error.value) == FIELD_SHAPES.format(shape)


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_refuses_a_vector_field_of_tuples_that_returns_other_shapes(name):
    y0 = (torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError) as error:
        make_solver(name).integrate(lambda t, y: y[::-1], y0, times(0, 1))
    assert str(error.value) == "the vector field must return the shapes of the state, [(2,), (3,)], got [(3,), (2,)]"


@pytest.mark.parametrize("batching", ["joint", "per_sample"])
@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 3), (2,)])
def test_refuses_absolute_tolerances_for_another_number_of_channels(shape, batching):
    solver = make_solver("dopri5", atol=[1e-3, 1e-4, 1e-5, 1e-6], batching=batching)
    with pytest.raises(ValueError) as error:
        solver.integrate(lambda t, y: y, torch.ones(shape), times(0, 1))
    assert str(error.value) == (
        f"atol has 4 values, but the state of shape {shape} has another number of channels (dimension 1)"
    )
