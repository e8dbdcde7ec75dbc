"""How a run may end: what its summary says, what is raised, and the exit status of the command."""

from __future__ import annotations

FINISHED, FAILED, UNFINISHED, DAMAGED = "finished", "failed", "unfinished", "damaged"
PRUNED = "pruned"  # ended by a search, because others did better
STATUS_FAILED, STATUS_USAGE = 1, 2


class RunFailedError(Exception):
    """A sound config whose run could not go on: a solve failed, a loss was not finite."""


class UnwrittenRunError(RunFailedError):
    """It could not be written down: nothing is wrong with the run itself."""
