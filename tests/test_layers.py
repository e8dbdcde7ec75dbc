"""Holds the layers: imports point down only, siblings never import each other, torch and hydra stay in their places."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "node_cli").rglob("*.py"))
}
SIBLINGS = {"tasks", "models", "datasets", "loggers"}
HELPERS = {"figures", "files", "tables"}
# What the files of each part may import of ours, besides their own part.
BELOW = {
    "batch": set(),
    "dates": set(),
    "series": {"batch"},
    "flow": set(),
    "latent": {"batch"},
    "files": set(),
    "figures": set(),
    "tables": set(),
    "ode": set(),
    "advice": {"ode"},
    "tasks": {"batch", "dates", "figures", "flow", "latent", "ode", "series"},
    "models": {"batch", "flow", "latent", "ode", "series"},
    "datasets": {"batch", "dates", "ode", "series"},
    "loggers": {"files", "ode"},
    "training": {"advice", "batch", "config", "figures", "files", "yaml_file", "ode"} | SIBLINGS,
    "runs": {"batch", "config", "schema", "trust", "yaml_file", "training", "ode"} | SIBLINGS | HELPERS,
    "audit": {"advice", "batch", "config", "runs", "training", "ode"} | SIBLINGS | HELPERS,
    "suggestions": {"config", "yaml_file"},
    "schema": {"config", "suggestions"},
    "references": set(),
    "passwords": set(),
    "config": {"references"},
    "arguments": {"advice", "config", "references", "trust"},
    "trust": {"config", "references", "yaml_file"},
    "yaml_file": {"config", "files"},
    "build": {
        "advice",
        "arguments",
        "config",
        "references",
        "trust",
        "audit",
        "training",
        "tasks",
        "models",
        "datasets",
        "loggers",
        "ode",
    },
    "loaded_run": {"batch", "build", "config", "latent", "runs", "series", "training"} | SIBLINGS,
    "tuning": {"config", "passwords", "runs", "training", "loggers"} | HELPERS,
    "commands": {"advice", "audit", "batch", "build", "config", "loaded_run", "runs", "training", "ode"}
    | SIBLINGS
    | HELPERS,
    "cli": {
        "audit",
        "build",
        "config",
        "commands",
        "passwords",
        "references",
        "runs",
        "schema",
        "training",
        "trust",
        "tuning",
        "yaml_file",
    }
    | HELPERS,
}


@cache
def imported(path):
    """Every absolute name that a file imports, wherever in the file."""
    return imported_by(path.read_text(), path)


def imported_by(source, path=None):
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def our_module(name):
    """The module of ours that a name is, or lies in; None for others."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def part(module):
    return module.split(".")[1] if "." in module else ""


@cache
def ours():
    """By module, all modules of ours that it imports."""
    return {module: {our_module(name) for name in imported(path)} - {None} for module, path in MODULES.items()}


@cache
def others():
    """By module, all packages that it imports."""
    return {module: {name.split(".")[0] for name in imported(path)} for module, path in MODULES.items()}


def reached(module):
    """Every module of ours that importing `module` may load, packages included."""
    seen, waiting = set(), {module}
    while waiting:
        current = waiting.pop()
        seen.add(current)
        packages = {current.rsplit(".", n)[0] for n in range(current.count(".") + 1)}
        waiting |= (ours()[current] | packages) - seen
    return seen


def test_every_part_has_its_layer():
    assert {part(module) for module in MODULES} - {""} <= set(BELOW)
    assert len(MODULES) > 50


def test_imports_point_down():
    upwards = {}
    for module, names in ours().items():
        allowed = BELOW[part(module)] | {part(module), ""} if part(module) else {""}
        upwards[module] = {name for name in names if part(name) not in allowed}
    assert {module: names for module, names in upwards.items() if names} == {}


def test_there_is_no_cycle():
    TopologicalSorter(ours()).prepare()


def test_hydra_is_imported_where_configs_are_composed_and_built_only():
    users = {part(module) for module, names in others().items() if names & {"hydra", "omegaconf"}}
    assert users <= {"cli", "build", "config"}
    assert {part(module) for module, names in others().items() if "hydra" in names} <= {"cli", "build"}


def heavy_imports(module):
    heavy = {"torch", "torchdiffeq", "torchvision", "sklearn", "scipy", "matplotlib", "tensorboard"}
    return {name: others()[name] & heavy for name in reached(module) if others()[name] & heavy}


@pytest.mark.parametrize(
    "module",
    [
        "node_cli.config",
        "node_cli.runs.folder",
        "node_cli.runs.report.reading",
        "node_cli.runs.report.formats",
    ],
)
def test_what_runs_before_torch_is_needed_does_not_import_it(module):
    assert heavy_imports(module) == {}


def test_a_report_imports_matplotlib_for_its_figures_only():
    assert heavy_imports("node_cli.cli.report") == {
        f"node_cli.{name}": {"matplotlib"} for name in ("figures", "runs.report.plots", "runs.report.styles")
    }


def test_what_needs_optuna_is_loaded_once_it_is_known_to_be_there():
    users = {module for module, names in others().items() if "optuna" in names}
    assert {part(module) for module in users} == {"tuning"}
    assert heavy_imports("node_cli.tuning.study") == {}


def test_torchdiffeq_is_called_in_one_place():
    users = {module for module, names in others().items() if "torchdiffeq" in names}
    assert users == {"node_cli.ode.torchdiffeq_solver"}


def test_the_reader_of_imports_sees_those_inside_functions():
    source = "import a.b\ndef f():\n    from node_cli.ode import solvers\n"
    assert imported_by(source) == {"a.b", "node_cli.ode.solvers"}


def test_nothing_of_hydra_is_used_that_it_keeps_to_itself():
    inside = {module: imported(path) for module, path in MODULES.items()}
    assert {
        module for module, names in inside.items() if any(name.startswith("hydra._internal") for name in names)
    } == set()
