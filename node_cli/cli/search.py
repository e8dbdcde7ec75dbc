"""A search as all of its processes know it: the study, and the command line that its trials share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from node_cli.cli.compose import CommandLine
from node_cli.cli.overrides import key_of, override
from node_cli.runs.outcome import RunFailedError
from node_cli.tuning.search_space import Params, SearchSpace
from node_cli.tuning.settings import Settings
from node_cli.tuning.storage import STORAGE_ERRORS, what_is_wrong
from node_cli.tuning.study import SharedStudy

OF_EACH_MACHINE = ("device", "num_threads", "packages", "logger")  # another machine may join with others


@dataclass(frozen=True)
class Search:
    """What every worker needs: the study, and the command line that all trials share."""

    line: CommandLine
    settings: Settings
    space: SearchSpace

    def open(self) -> SharedStudy:
        """The study, made if it is not there."""
        words = sorted(word for word in self.line.overrides if key_of(word) not in OF_EACH_MACHINE)
        begun = {
            "space": [repr(parameter) for parameter in self.space.parameters],
            "objectives": [f"{'max ' * o.maximize}{o.metric}" for o in self.settings.objectives],
            "words": words,
        }
        return SharedStudy(self.settings, self.space, begun)

    def line_with(self, params: Params) -> CommandLine:
        """The command line of a trial."""
        return replace(
            self.line, overrides=[*self.line.overrides, *(override(key, value) for key, value in params.items())]
        )


@contextmanager
def storage_told(settings: Settings) -> Iterator[None]:
    """Where the storage is lost midway, one line says so."""
    try:
        yield
    except STORAGE_ERRORS as error:
        raise RunFailedError(f"{what_is_wrong(settings, error)}: the same command goes on when it is back") from error
