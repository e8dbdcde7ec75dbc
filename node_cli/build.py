"""The composition root: a config becomes parts. Nothing else instantiates from a config, and nothing here writes.

What a part refuses is a ConfigError, under the full name of the key.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch import nn
from torch.optim import Optimizer

from node_cli.advice import in_keys
from node_cli.arguments import (
    check_arguments,
    check_plain,
    gives,
    kinds,
    lacking_arguments,
    refusal,
    require_effect,
    takes,
)
from node_cli.audit.base import AuditProblem
from node_cli.config import SPLITS, ConfigError
from node_cli.datasets.dataset import Dataset
from node_cli.loggers.base import Loggers, Resume
from node_cli.ode.base import Solver
from node_cli.ode.gradients import Gradient
from node_cli.references import nodes
from node_cli.tasks.task import Task
from node_cli.training.machine import place_of, set_num_threads
from node_cli.training.optimizers import without_compiler
from node_cli.training.processes import ALONE, Processes
from node_cli.training.starting import freeze
from node_cli.training.trainer import Trainer
from node_cli.trust import OPTIMIZER, choice, choices, lies_in, make_importable, require_trusted

KINDS = {
    "dataset": Dataset,
    "task": Task,
    "model": nn.Module,
    "vector_field": nn.Module,
    "solver": Solver,
    "optimizer": torch.optim.Optimizer,
}
MEMBERS = {  # of parts that are of no class of ours
    "gradient": ("check", "solve"),
    "scheduler": ("__call__",),
    "audit": ("__call__",),
    "problem": ("num_measurements", "audit"),
    "trainer": ("fit", "state_dict", "load_state_dict"),
}

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Problem:
    """What evaluation needs: the data, the network, and the task that says how well it does."""

    dataset: Dataset
    model: nn.Module
    task: Task


def build_problem(config: dict[str, Any], *, is_new: bool = True) -> Problem:
    """Dataset, model and task, on the device; weights follow from `seed`. A new config sets no key without effect."""
    set_num_threads(config["num_threads"])
    dataset = build_dataset(config)
    model, task = build_model(config, dataset.offers, dataset.lacks)
    task.choose(model, dataset.splits["train"])
    try:
        task.check(model, dataset.splits)
    except ValueError as error:
        raise ConfigError(in_keys(error)) from error
    if is_new:
        require_effect(config, task.unused(model))
    return Problem(dataset, model, task)


def build_dataset(config: dict[str, Any]) -> Dataset:
    """The data, on the config's device and in its precision."""
    device, dtype = place_of(config)
    dataset: Dataset = _build(config, "dataset")
    absent = [name for name in SPLITS if name not in dataset.splits]
    if absent:
        raise ConfigError(f"dataset has no split {', '.join(absent)}: it must have {', '.join(SPLITS)}")
    return dataset.identified().to(device, dtype)


def build_model(
    config: dict[str, Any], offers: Mapping[str, Any], lacks: Mapping[str, str] = NOTHING
) -> tuple[nn.Module, Task]:
    """The model, on the config's device, and the task, for a dataset with these offers; weights follow from `seed`.

    `lacks` says of what is not offered, by name, how it would be.
    """
    task: Task = _build_with(config, "task", offers, lacks)
    if task.objective[0] not in task.metric_names:
        raise ConfigError(f"task: its objective must be one of {', '.join(task.metric_names)}, got {task.objective[0]}")
    torch.manual_seed(config["seed"])
    solving = {"solver": build_solver(config), "gradient": build_gradient(config)}
    if "vector_field" in config:
        solving["vector_field"] = _vector_field(config, offers)
    all_offers = {**offers, **task.offers, **solving}
    model: nn.Module = _build_with(config, "model", all_offers, kind=task.model_type)
    if not isinstance(model, task.model_type):
        wanted, given = " or a ".join(each.__name__ for each in kinds(task.model_type)), type(model).__name__
        way = _fitting("model", all_offers, task.model_type) or "one of your own"
        raise ConfigError(f"model: {type(task).__name__} needs a {wanted}, got {given}: take model={way}")
    task.equip(model)
    return model.to(*place_of(config)), task


def _vector_field(config: dict[str, Any], offers: Mapping[str, Any]) -> Callable[[int], nn.Module]:
    """What makes the vector field that the config names, of a state with so many channels."""
    if "vector_field" not in _asked_for(config, "model"):
        raise ConfigError(
            f"vector_field: {config['model']['_target_']} has no slot for one: leave it out, or take model=odenet, "
            "model=odenet_mlp or, for series, model=neural_ode"
        )

    def make(channels: int) -> nn.Module:
        vector_field: nn.Module = _build_with(config, "vector_field", {**offers, "channels": channels})
        return vector_field

    return make


def build_solver(config: dict[str, Any]) -> Solver:
    """What `solver` names."""
    solver: Solver = _build(config, "solver")
    return solver


def build_gradient(config: dict[str, Any]) -> Gradient:
    """What `gradient` names."""
    gradient: Gradient = _build(config, "gradient")
    return gradient


def audits_a_model(config: dict[str, Any]) -> bool:
    """Whether what `problem` names asks for a model; if not, it brings its own."""
    return "model" in _asked_for(config, "problem")


def build_audit(config: dict[str, Any], problem: Problem | None) -> AuditProblem:
    """What `problem` names, with the model, task and data of `problem` if it asks for them."""
    runtime = {} if problem is None else _of_the_problem(config, problem) | {"rtols": config["rtols"]}
    audit: AuditProblem = _build(config, "problem", **runtime)
    return audit


def build_trainer(config: dict[str, Any], problem: Problem, processes: Processes = ALONE) -> Trainer:
    """The trainer with its optimizer and schedule; each of `processes` draws random numbers of its own from now on."""
    if processes.rank:
        torch.manual_seed(int(np.random.SeedSequence([config["seed"], processes.rank]).generate_state(1, np.uint64)[0]))
    trained = freeze(problem.model, config["trainer"].get("freeze", []))
    schedule = {key: value for key, value in config["scheduler"].items() if key != "on_resume"}
    trainer: Trainer = _build(
        config,
        "trainer",
        model=problem.model,
        task=problem.task,
        dataset=problem.dataset,
        optimizer=_build(config, "optimizer", params=trained),
        schedule=_build(config | {"scheduler": schedule}, "scheduler"),
        on_resume=config["scheduler"].get("on_resume", "continue"),
        processes=processes,
        seed=config["seed"],
        precision=config["precision"],
        audit=_build(config, "audit", **_of_the_problem(config, problem)),
    )
    return trainer


def build_loggers(config: dict[str, Any], folder: Path, resume: Resume | None) -> Loggers:
    """The loggers of the config, writing to `folder` from now on."""
    factories = [_build_node(f"logger.{name}", node, config["packages"]) for name, node in config["logger"].items()]
    try:
        return Loggers([factory(folder, resume) for factory in factories])
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _target(key: str, node: dict[str, Any], packages: list[str]) -> Callable[..., Any]:
    """The class or function that a node names; the name must be one to trust, and what it leads to as well."""
    name = node["_target_"]
    require_trusted(key, node, packages)
    if lies_in(name, packages):
        make_importable(packages)
    try:
        target: Callable[..., Any] = get_object(name)
    except (ImportError, InstantiationException, ValueError) as error:
        raise ConfigError(f"{key}._target_={name} cannot be imported: {' '.join(str(error).split())}") from error
    if not (inspect.isclass(target) or inspect.isfunction(target)):
        raise ConfigError(f"{key}._target_={name} is not allowed: it is no class and no function of Python")
    if lies_in(name, packages):
        is_trusted = lies_in(target.__module__, packages)
    else:
        is_trusted = not OPTIMIZER.fullmatch(name) or (inspect.isclass(target) and issubclass(target, Optimizer))
    if not is_trusted:
        raise ConfigError(f"{key}._target_={name} is not allowed: it leads to {target.__module__}.{target.__name__}")
    return target


def _of_the_problem(config: dict[str, Any], problem: Problem) -> dict[str, Any]:
    return vars(problem) | {key: config[key] for key in ("seed", "precision")}


def _asked_for(config: dict[str, Any], group: str) -> Mapping[str, Any]:
    """The parameters of the part that a group names."""
    return inspect.signature(_target(group, config[group], config["packages"])).parameters


def _build_with(
    config: dict[str, Any],
    group: str,
    offers: Mapping[str, Any],
    lacks: Mapping[str, str] = NOTHING,
    kind: Any = object,
) -> Any:
    """The part that a group describes, given what it asks for of what the other parts offer.

    Raises:
        ConfigError: nobody offers what it asks for; or what `_build` refuses.
    """
    node = config[group]
    asked = _asked_for(config, group)
    lacking = lacking_arguments(asked, {**node, **offers})
    explained = [lacks[name] for name in lacking if name in lacks]
    if explained:
        raise ConfigError(explained[0])
    if lacking and node.get("_partial_"):
        givers = "the dataset" if group == "task" else "the dataset nor the task"
        fitting = _fitting(group, offers, kind)
        own = f"leave dataset= and model= out, and the task takes its own (given are {', '.join(offers) or 'none'})"
        raise ConfigError(
            f"{group}: {node['_target_']} needs {', '.join(lacking)}, which neither its YAML nor {givers} gives: "
            f"{f'take {group}={fitting}, or another dataset' if fitting else own}"
        )
    return _build(config, group, **{name: offers[name] for name in asked if name in offers and name not in node})


def _fitting(group: str, offers: Mapping[str, Any], kind: Any) -> str:
    """The shipped choices of a group that are of a kind and can be built with what is offered, in words."""
    parts = {name: get_object(target) for name, target in choices(group).items()}
    fitting = [
        name for name, part in parts.items() if gives(part, kind) and takes(part, {**offers, **choice(group, name)})
    ]
    return " or ".join(filter(None, [", ".join(fitting[:-1]), *fitting[-1:]]))


def _build(config: dict[str, Any], group: str, **runtime: Any) -> Any:
    """The part that a group describes, called with the runtime objects if its YAML says `_partial_`."""
    node, kind = config[group], KINDS.get(group, object)
    if node.get("_partial_") and not runtime:
        raise ConfigError(f"{group}: its YAML says _partial_, and nothing comes later: leave it out")
    part = _build_node(group, node, config["packages"], **runtime)
    if not isinstance(part, kind):
        wanted, given = (f"{each.__module__}.{each.__qualname__}" for each in (kind, type(part)))
        raise ConfigError(f"{group}: {node['_target_']} must give a {wanted}, and gives a {given}")
    lacking = [name for name in MEMBERS.get(group, ()) if name not in dir(part)]
    if lacking:
        raise ConfigError(f"{group}: {node['_target_']} gives a {type(part).__qualname__} without {', '.join(lacking)}")
    return part


def _build_node(group: str, node: dict[str, Any], packages: list[str], **runtime: Any) -> Any:
    for path, inner in nodes(node, (group,)):  # what lies deeper is instantiated with it
        if path != (group,) and isinstance(inner, dict) and "_target_" in inner:
            _target(".".join(path), inner, packages)
    target = _target(group, node, packages)
    check_plain(group, node)
    check_arguments(group, node, target, runtime)
    try:
        part = instantiate(node, _convert_="all")
        if runtime and inspect.isclass(target) and issubclass(target, Optimizer):
            part = partial(without_compiler(target), *part.args, **part.keywords)
        return part(**runtime) if runtime else part
    except ConfigError:  # of a part of this part, which has said so
        raise
    except (InstantiationException, MemoryError, RuntimeError, ValueError, FileNotFoundError) as error:
        refused = refusal(group, node, error.__cause__ if isinstance(error, InstantiationException) else error)
        if refused is None:
            raise
        raise ConfigError(refused) from error
