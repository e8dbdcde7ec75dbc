"""`node-tune`: searches the config that does best on validation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from omegaconf import OmegaConf

from node_cli.cli.app import launch
from node_cli.cli.compose import (
    CommandLine,
    Composed,
    checked,
    checked_config,
    hydra_ready,
    typed_packages,
    with_known_keys,
)
from node_cli.cli.errors import one_line_errors
from node_cli.cli.overrides import Override, override, parse
from node_cli.config import KEYS, ConfigError, known_of, leaves, resolved
from node_cli.runs.folder import Request, RunFolder
from node_cli.training import launched
from node_cli.tuning.search_space import CHOICES, RANGE, Params, SearchSpace
from node_cli.tuning.search_space import parse as parse_space
from node_cli.tuning.settings import Objective, Settings, read_settings

if TYPE_CHECKING:
    from node_cli.tuning.study import SharedStudy

SPACE = "tune.space"
RESTARTS = 3  # of workers that were killed, for each trial that may still be taken up again


@dataclass(frozen=True)
class Search:
    """What every worker needs: the study, and the command line that all trials share."""

    line: CommandLine
    settings: Settings
    space: SearchSpace

    def open(self) -> SharedStudy:
        """The study, made if there is none."""
        from node_cli.tuning.study import SharedStudy

        begun = {
            "space": [repr(parameter) for parameter in self.space.parameters],
            "objectives": [f"{'max ' * o.maximize}{o.metric}" for o in self.settings.objectives],
            "words": sorted(each.text for each in self.line.overrides if not known_of(each.key).of_machine),
        }
        return SharedStudy(self.settings, self.space, begun)

    def line_with(self, params: Params) -> CommandLine:
        """The command line of a trial."""
        drawn = [override(key, value) for key, value in params.items()]
        return replace(self.line, overrides=[*self.line.overrides, *drawn])

    def request(self, params: Params, folder: RunFolder) -> Request:
        """What the run of a trial is asked for.

        Raises:
            ConfigError: its values are not sound.
        """
        resume = [override("resume", "auto")] if folder.holds_run else []
        line = self.line_with(params)
        line = replace(line, overrides=[*line.overrides, override("run_dir", str(folder.path)), *resume])
        with hydra_ready(line):
            composed = checked(line)
        return Request(composed.config, [each.text for each in line.overrides], composed.choices)

    def as_experiment(self, params: Params) -> str:
        """A file for `configs/experiment/` that trains as a trial did."""
        from node_cli.tuning.results import experiment

        line = self.line_with(params)
        with hydra_ready(line):
            usual, composed = _choices(checked(replace(line, overrides=[]))), checked(line)
            chosen = _choices(composed)
            plain = replace(line, overrides=parse(f"{group}={choice}" for group, choice in chosen.items()))
            required, given = OmegaConf.missing_keys(with_known_keys(plain)), dict(leaves(composed.config))
            filled = replace(plain, overrides=[*plain.overrides, *(override(key, given[key]) for key in required)])
            unchanged = {key: value for key, value in leaves(checked_config(filled)) if key not in required}
            changed = {group: choice for group, choice in chosen.items() if choice != usual.get(group)}
            return experiment(composed.config, changed, unchanged)


def main() -> None:
    """The entry point."""
    launch("tune", run, _meant, _refuse, needs_output=False)


def _meant(overrides: list[Override]) -> list[Override]:
    """The overrides with those of the space; refuses what is of a sweep, or would start a trial in many processes."""
    if launched.is_one_of_several():
        raise ConfigError("a trial is one process: leave the launcher out, and set tune.workers=N to train N at once")
    of_sweep = [each.text for each in overrides if each.is_of_sweep]
    if of_sweep:
        raise ConfigError(f"{' '.join(of_sweep)}: that is of a sweep: a search has tune.name and tune.workers")
    return with_space(overrides)


def _refuse(line: CommandLine) -> NoReturn:
    raise ConfigError("a search runs many trials already: leave -m out, or search over the key (tune.space)")


def with_space(overrides: Sequence[Override]) -> list[Override]:
    """The overrides, those below `tune.space` as others that are merged into the space: `+tune.space={KEY: ...}`.

    Hydra would take each dot of a key for a level. `tune.space.KEY=...` sets or adds a key, `tune.space.KEY.low=...`
    one setting of its range; ~KEY or null leaves it out.

    Raises:
        ConfigError: one names several values, or none.
    """
    return [new for each in overrides for new in (_merged(each) if _is_of_space(each) else [each])]


def _is_of_space(each: Override) -> bool:
    return each.key == SPACE or each.key.startswith(f"{SPACE}.")


def _merged(each: Override) -> list[Override]:
    path = each.key[len(SPACE) + 1 :]
    if each.is_sweep:
        raise ConfigError(f"{each.text} names several values: write {each.key}=[...] for choices")
    if not path:
        if not isinstance(each.value, dict):
            raise ConfigError(f"{each.text} is no search space: write {SPACE}.KEY={{low: ..., high: ...}}")
        return parse([f"+{SPACE}={each.raw}"])
    if not each.raw and each.prefix != "~":
        raise ConfigError(f"{each.text} has no value")
    key, _, last = path.rpartition(".")
    if key and last in {*RANGE, *CHOICES}:
        return parse([f"+{SPACE}={{{key}:{{{last}:{each.raw or 'null'}}}}}"])
    values = ["null", each.raw or "null"]  # null first: a list cannot be merged into a range
    return parse(f"+{SPACE}={{{path}:{value}}}" for value in values)


def run(composed: Composed) -> None:
    """Runs what is missing of a study, and sums it up."""
    if find_spec("optuna") is None:
        raise ConfigError("Optuna is not installed: pip install 'node-cli[tune]'")
    typed, packages = composed.overrides, typed_packages(composed.overrides)
    asked = composed.config["tune"]
    if asked["storage"] is not None and "tune.storage" not in [each.key for each in typed]:
        raise ConfigError("tune.storage must be set on the command line (tune.storage=...), not in a file")
    _check_left_out(asked["space"], CommandLine("tune", typed, composed.own_files, packages))
    space = parse_space(asked["space"])
    line = CommandLine("train", [each for each in typed if each.group != "tune"], composed.own_files, packages)
    tune(Search(line, read_settings(asked, space.endless), space))


def _check_left_out(space: Mapping[str, Any], line: CommandLine) -> None:
    """Refuses null for a key that the chosen files do not search."""
    if None not in space.values():
        return
    chosen = replace(line, overrides=[each for each in line.overrides if not _is_of_space(each)])
    with hydra_ready(line):
        before = resolved(chosen.compose())["tune"]["space"]
    unknown = [key for key, node in space.items() if node is None and key not in before]
    if unknown:
        there = ", ".join(before)
        raise ConfigError("\n".join(f"{SPACE} has no {key} to leave out: there are {there}" for key in unknown))


def tune(search: Search) -> None:
    """Runs what is missing of a study.

    Raises:
        ConfigError: a line for each mistake that shows before the first trial.
        RunFailedError: no trial has finished, or one is left unfinished.
    """
    from node_cli.tuning.results import sum_up
    from node_cli.tuning.storage import reporting_storage_errors
    from node_cli.tuning.workers import run_workers, signals_stop

    _check_space(search)
    search = _with_objectives(search)
    settings = search.settings
    with reporting_storage_errors(settings), signals_stop():
        shared = search.open()
        begun = len(shared.trials())
        sys.stdout.write(f"study {settings.path}: {begun} of {settings.trials} trials begun\n")
        sys.stdout.flush()
        run_workers(partial(work, search), settings.workers, RESTARTS * settings.trials)
        sum_up(shared, search.as_experiment)


def work(search: Search) -> None:
    """What a worker process does."""
    from node_cli.commands.training import run_training
    from node_cli.tuning.storage import reporting_storage_errors
    from node_cli.tuning.worker import run_trials

    launched.end_with_parent()
    with one_line_errors("node-tune", needs_output=False), reporting_storage_errors(search.settings):
        run_trials(search.open(), search.request, run_training)


def _check_space(search: Search) -> None:
    """Composes a few trials in which every key occurs, at the edges of its range."""
    typed = {each.key for each in search.line.overrides}
    set_twice = typed & set(search.space.keys)
    problems = [f"{key} is set and searched: leave one of them out" for key in sorted(set_twice)]
    problems += [
        f"{key} is that of each trial: leave it out"
        for key, known in KEYS.items()
        if known.of_each_run and key in {*typed, *search.space.keys}
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
    from node_cli.build import build_problem, build_trainer
    from node_cli.training.evaluation import metric_names

    with hydra_ready(search.line):
        config = checked_config(search.line)
    trainer = build_trainer(config, build_problem(config))
    known = [f"val/{name}" for name in metric_names(trainer.model, trainer.task)]
    if trainer.monitor.has_blocks or "model" in search.space.keys:
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


def _choices(composed: Composed) -> dict[str, str]:
    """The file of each group; what an experiment sets is told by its keys."""
    return {group: name for group, name in composed.choices.items() if group != "experiment" and name is not None}


if __name__ == "__main__":
    main()
