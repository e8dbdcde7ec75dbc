"""What a study has found: a table, and the best configs as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from optuna.trial import FrozenTrial

from node_cli.runs.outcome import FINISHED
from node_cli.runs.report.formats import RunTable, notes_on, terminal
from node_cli.runs.report.grouping import group_runs, sort_groups
from node_cli.runs.report.reading import leaves
from node_cli.tuning.study import SharedStudy

SHOWN = 15  # rows of the table
NOT_KEPT = ("run_dir", "resume", "sweep", "packages", "logger", "audit")  # of a trial, not of its config


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
    return terminal(shown, more + notes_on(shown, runs, len(runs)))


def experiment(config: Mapping[str, Any], choices: Mapping[str, Any], unchanged: Mapping[str, Any]) -> str:
    """A file for `configs/experiment/`: the choices, and what differs from the chosen files as they stand."""
    defaults = [{f"override /{group}": choice} for group, choice in choices.items() if group not in NOT_KEPT]
    known = dict(leaves(unchanged))
    content: dict[str, Any] = {"defaults": defaults} if defaults else {}
    for key, value in leaves(config):
        if key.partition(".")[0] not in NOT_KEPT and (key not in known or known[key] != value):
            _put(content, key.split("."), value)
    return f"# @package _global_\n{yaml.safe_dump(content, sort_keys=False)}"


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value
