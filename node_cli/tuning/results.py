"""What a study has found: a table, and the best configs as YAML."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from shlex import quote
from typing import Any

import yaml
from optuna.trial import FrozenTrial

from node_cli.config import known_of, leaves
from node_cli.runs.outcome import FINISHED, UNFINISHED, RunFailedError
from node_cli.runs.report.formats import RunTable, notes_on, terminal
from node_cli.runs.report.grouping import group_runs, sort_groups
from node_cli.runs.report.writing import make_folder, write
from node_cli.tuning.plots import figures
from node_cli.tuning.search_space import Params
from node_cli.tuning.study import SharedStudy

SHOWN = 15  # rows of the table


def best_trials(shared: SharedStudy) -> list[FrozenTrial]:
    """The best one; with several objectives their front, the best of the first objective leading."""
    sign = -1 if shared.settings.objectives[0].maximize else 1
    if not any(run.status == FINISHED for run in shared.runs()):
        return []
    found = shared.study.best_trials if len(shared.settings.objectives) > 1 else [shared.study.best_trial]
    return sorted(found, key=lambda trial: sign * trial.values[0])


def table(shared: SharedStudy) -> str:
    """The finished trials, best first; under it what became of the others."""
    runs, first = shared.runs(), shared.settings.objectives[0]
    finished = [run for run in runs if run.status == FINISHED]
    keys, columns = ["trial", *shared.space.keys], [objective.column for objective in shared.settings.objectives]
    groups = sort_groups(group_runs(finished, keys), first.column, descending=first.maximize)
    shown = RunTable(keys, columns, groups[:SHOWN])
    more = [f"and {len(groups) - SHOWN} more"] if len(groups) > SHOWN else []
    return terminal(shown, more + notes_on([shown], runs, len(runs)))


def experiment(config: Mapping[str, Any], choices: Mapping[str, Any], unchanged: Mapping[str, Any]) -> str:
    """A file for `configs/experiment/`: the choices, and what differs from the chosen files as they stand."""
    defaults = [{f"override /{group}": choice} for group, choice in choices.items() if _is_kept(group)]
    known = dict(leaves(unchanged))
    content: dict[str, Any] = {"defaults": defaults} if defaults else {}
    for key, value in leaves(config):
        if _is_kept(key) and (key not in known or known[key] != value):
            *above, last = key.split(".")
            node = content
            for part in above:
                node = node.setdefault(part, {})
            node[last] = value
    return f"# @package _global_\n{yaml.safe_dump(content, sort_keys=False)}"


def _is_kept(key: str) -> bool:
    """Whether it is of the config of a trial, and not of how it ran."""
    return known_of(key).is_hyperparameter and not known_of(key).of_machine


def sum_up(shared: SharedStudy, as_experiment: Callable[[Params], str]) -> None:
    """Writes the best configs and the figures of the study, and prints its table, and how to train the best.

    It holds the lock of the study, as another command may end too. `as_experiment` makes a file of YAML of the values
    of a trial.

    Raises:
        RunFailedError: no trial has finished, or one is left unfinished.
    """
    path, names = shared.settings.path, []
    with shared.lock:
        best = best_trials(shared)
        for trial in best:
            names.append("best" if trial is best[0] else f"trial_{trial.number}")
            make_folder(path / "experiment")
            write(path / "experiment" / f"{names[-1]}.yaml", as_experiment(trial.params).encode())
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
    if missing:
        trials = "1 trial has" if missing == 1 else f"{missing} trials have"
        later = f", {shared.settings.lost_after} s (tune.lost_after) after a machine was lost"
        raise RunFailedError(
            f"{trials} not finished: another process is at work, or was killed: the same command takes up what is left"
            f"{later if shared.settings.storage else ''}"
        )
    if not best:
        raise RunFailedError(f"no trial of {path} has finished")
