"""What stands under a table: rows of fewer seeds than runs, or with gaps; the runs that are not in it, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from node_cli.runs.outcome import DAMAGED, FAILED, FINISHED, PRUNED, UNFINISHED
from node_cli.runs.report.formats import RunTable
from node_cli.runs.report.progress import progress
from node_cli.runs.report.record import Run

LISTED = 10  # runs of one kind


def notes(table: RunTable, selected: Sequence[Run], num_all: int) -> list[str]:
    """Rows of few seeds, or with gaps; how many runs of each kind there are; those without a row."""
    rows = [*_fewer_seeds(table), *_with_gaps(table)]
    return [*rows, _counts(table, selected, num_all), *_without_a_row(selected)]


def _counts(table: RunTable, selected: Sequence[Run], num_all: int) -> str:
    count = Counter(run.status for run in selected)
    kinds = [f"{count[kind]} {kind}" for kind in (FINISHED, UNFINISHED, PRUNED, FAILED, DAMAGED) if count[kind]]
    left_out = num_all - len(selected)
    kinds += [f"{left_out} left out by --where"] if left_out else []
    return f"{num_all} run{'s' if num_all > 1 else ''}: {', '.join(kinds)}"


def _without_a_row(runs: Sequence[Run]) -> list[str]:
    lines = []
    for kind, words in WORDS.items():
        same = [run for run in runs if run.status == kind]
        first: dict[str, Path] = {}
        for run in same[:LISTED]:
            reason = " ".join(words(run).split())
            told = f"the same as {first[reason]}" if reason in first else reason
            lines.append(f"{kind}: {run.folder}: {told}")
            first.setdefault(reason, run.folder)
        lines += [f"{kind}: and {len(same) - LISTED} more"] if len(same) > LISTED else []
    return lines


def _fewer_seeds(table: RunTable) -> list[str]:
    return [
        f"{group.label()}: {len(group.runs)} runs, {group.num_seeds} seed{'s' if group.num_seeds > 1 else ''}: "
        "runs of one seed say nothing about the std over seeds"
        for group in table.groups
        if group.repeats_seeds
    ]


def _with_gaps(table: RunTable) -> list[str]:
    return [
        f"{group.label()}: {column} of {group.num_with(column)} of {len(group.runs)} runs, the others have none"
        for group in table.groups
        for column in table.columns
        if 0 < group.num_with(column) < len(group.runs)
    ]


WORDS: dict[str, Callable[[Run], str]] = {
    UNFINISHED: progress,
    PRUNED: lambda run: run.reason,
    FAILED: lambda run: run.reason,
    DAMAGED: lambda run: run.reason,
}
