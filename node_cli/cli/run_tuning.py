"""A study from a sound command line to its table: checks, worker processes, results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from shlex import quote
from typing import Any

from node_cli.cli.compose import CommandLine, checked_config, hydra_ready
from node_cli.cli.overrides import key_of
from node_cli.cli.search import Search, storage_told
from node_cli.config import ConfigError
from node_cli.runs.outcome import UNFINISHED, RunFailedError
from node_cli.runs.report.writing import make_folder, write
from node_cli.tuning.plots import figures
from node_cli.tuning.results import best_trials, experiment, table
from node_cli.tuning.search_space import Params, parse
from node_cli.tuning.settings import Objective, Settings, read_settings
from node_cli.tuning.study import SharedStudy
from node_cli.tuning.workers import run_workers, signals_stop

RESTARTS = 3  # of workers that were killed, for each trial that may still be taken up again
OF_EACH_TRIAL = ("run_dir", "resume")  # not for the user to set


def tune(tune: Mapping[str, Any], line: CommandLine) -> None:
    """Runs what is missing of the study that `tune` describes.

    Raises:
        ConfigError: a line for each mistake that shows before the first trial.
        RunFailedError: no trial has finished, or one is left unfinished.
    """
    space = parse(tune["space"])
    search = Search(line, read_settings(tune, space.endless), space)
    _check_space(search)
    search = _with_objectives(search)
    from node_cli.cli.tune_worker import work

    with storage_told(search.settings), signals_stop():
        shared = search.open()
        begun = len(shared.trials())
        sys.stdout.write(f"study {search.settings.path}: {begun} of {search.settings.trials} trials begun\n")
        sys.stdout.flush()
        run_workers(partial(work, search), search.settings.workers, RESTARTS * search.settings.trials)
        _sum_up(search, shared)


def _check_space(search: Search) -> None:
    """Composes a few trials in which every key occurs, at the edges of its range."""
    set_twice = {key_of(word) for word in search.line.overrides} & set(search.space.keys)
    problems = [f"{key} is set and searched: leave one of them out" for key in sorted(set_twice)]
    problems += [
        f"{key} is that of each trial: leave it out"
        for key in OF_EACH_TRIAL
        if key in {*map(key_of, search.line.overrides), *search.space.keys}
    ]
    with hydra_ready(search.line):
        for params in [] if problems else search.space.examples():
            try:
                problems += _several_devices(checked_config(search.line_with(params)))
            except ConfigError as error:
                problems += [f"tune.space: {line}" for line in str(error).splitlines()]
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))


def _several_devices(config: Mapping[str, Any]) -> list[str]:
    devices = config["trainer"].get("devices", 1)
    told = f"trainer.devices={devices}: a trial is one process: leave it out, and set tune.workers to train several"
    return [] if devices == 1 else [f"{told} at once"]


def _with_objectives(search: Search) -> Search:
    """The same with the objective of the task, where none is named. Builds the first config of all; imports torch."""
    from node_cli.build import build_problem, build_trainer, uses_solver
    from node_cli.training.evaluation import metric_names

    with hydra_ready(search.line):
        config = checked_config(search.line)
    trainer = build_trainer(config, build_problem(config))
    known = [f"val/{name}" for name in metric_names(trainer.model, trainer.task)]
    if uses_solver(trainer.model) or "model" in search.space.keys:
        known += ["nfe/forward", "nfe/backward", "nfe/val"]
    known += ["seconds", "memory", "parameters"]
    for objective in search.settings.objectives:
        if objective.metric not in known:
            raise ConfigError(f"tune.objectives: a run has no {objective.metric}: there are {', '.join(known)}")
    if search.settings.objectives:
        return search
    name, goal = trainer.task.objective
    own = Objective(f"val/{name}", maximize=goal == "max")
    return replace(search, settings=replace(search.settings, objectives=[own]))


def _sum_up(search: Search, shared: SharedStudy) -> None:
    """The table, and what a later command reads: under the lock, as another command may end too."""
    path, names = search.settings.path, []
    with shared.lock:
        best = best_trials(shared)
        for trial in best:
            names.append("best" if trial is best[0] else f"trial_{trial.number}")
            make_folder(path / "experiment")
            write(path / "experiment" / f"{names[-1]}.yaml", _as_experiment(search, trial.params).encode())
        not_drawn = []
        for name, figure in figures(shared):
            if isinstance(figure, bytes):
                write(path / name, figure)
            else:
                not_drawn.append(f"{name} is not drawn: {figure}\n")
    sys.stdout.write(f"\n{table(shared)}{''.join(not_drawn)}\n")
    for name in names:
        sys.stdout.write(f"node-train --config-dir {quote(str(path))} experiment={name}\n")
    missing = sum(run.status == UNFINISHED for run in shared.runs())
    if missing or not best:
        raise RunFailedError(_unfinished(missing, search.settings) if missing else f"no trial of {path} has finished")


def _unfinished(missing: int, settings: Settings) -> str:
    trials = "1 trial is not at its end" if missing == 1 else f"{missing} trials are not at their end"
    text = f"{trials}: another process is at work, or was killed: the same command takes up what is left"
    return f"{text}, {settings.lost_after} s (tune.lost_after) after a machine was lost" if settings.storage else text


def _as_experiment(search: Search, params: Params) -> str:
    line = search.line_with(params)
    with hydra_ready(line):
        usual, chosen = _choices(replace(line, overrides=[])), _choices(line)
        plain = replace(line, overrides=[f"{group}={choice}" for group, choice in chosen.items()])
        changed = {group: choice for group, choice in chosen.items() if choice != usual.get(group)}
        return experiment(checked_config(line), changed, checked_config(plain))


def _choices(line: CommandLine) -> dict[str, str]:
    """The file of each group; what an experiment sets is told by its keys."""
    chosen = line.compose(line.overrides, with_hydra=True).hydra.runtime.choices
    return {str(g): c for g, c in chosen.items() if "/" not in str(g) and g != "experiment" and c is not None}
