import inspect
from pathlib import Path

import hydra
import pytest
import torch
from hydra.utils import get_object, instantiate

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
OF_SERIES = {
    *("num_channels", "num_controls", "num_statics", "num_starts", "num_segments", "channel_names"),
    *("control_names", "static_names", "time_name", "units", "control_scaling", "static_scaling"),
}
NO_CONFIG_KEYS = {
    "input_shape",
    "num_outputs",
    "num_conditions",
    "learns_rates",
    "solver",
    "gradient",
    "vector_field",
    *OF_SERIES,
}


@pytest.fixture
def compose():
    """Composes the training config with overrides."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield lambda *overrides: hydra.compose("train", list(overrides))


def build(config, **shape):
    solve = {key: instantiate(config[key]) for key in ("solver", "gradient")}
    wanted = inspect.signature(get_object(config.model._target_)).parameters
    return instantiate(config.model)(**shape, **{key: part for key, part in solve.items() if key in wanted})


@pytest.mark.parametrize("name", NAMES)
def test_yaml_holds_every_key_and_python_no_default(name, compose):
    config = compose(f"model={name}").model
    parameters = inspect.signature(get_object(config._target_)).parameters
    assert set(config) - {"_target_", "_partial_"} == set(parameters) - NO_CONFIG_KEYS
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    defaults = {key: p.default for key, p in parameters.items() if p.default is not inspect.Parameter.empty}
    assert set(defaults) <= {"vector_field", "num_outputs"}  # a slot that is left empty, and what not every task offers
    assert set(defaults.values()) <= {None}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("odenet", 142_538), ("rknet", 142_538), ("resnet1", 141_130), ("resnet", 511_050), ("stem_only", 67_146)],
)
def test_number_of_parameters_on_digits(name, expected, compose):
    model = build(compose(f"model={name}"), input_shape=(1, 8, 8), num_outputs=10)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize("name", ["mlp", "odenet_mlp"])
def test_models_for_points_take_points(name, compose):
    model = build(compose(f"model={name}"), input_shape=(2,), num_outputs=3)
    assert model(torch.randn(5, 2)).shape == (5, 3)


def test_rknet_brings_its_solver_and_the_command_line_still_decides(compose):
    config = compose("model=rknet")
    assert config.solver.method == "rk4"
    assert config.gradient._target_.endswith("Direct")
    config = compose("model=rknet", "solver=euler", "gradient=adjoint")
    assert config.solver.method == "euler"
    assert config.gradient._target_.endswith("Adjoint")
