"""Tables and figures of the audit of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from node_cli.audit.base import AuditReport
from node_cli.audit.comparison import Curve, Difference, draw_errors, number_counts
from node_cli.audit.model_rows import ModelRow
from node_cli.audit.verdict import Verdict
from node_cli.figures import label_panel, panels
from node_cli.tables import Table, percent, two_digits

NOTES = (
    "off the pass: from the exact gradient of the loss that was computed (the same steps, in float64).",
    "rounding: what plain autograd over the same steps is off by in the precision of the model.",
    "off the ODE: from a float64 solve at {rtol:g} ({nfe} evaluations), whose gradient moves by {moves} at {rough:g}.",
    "norm: of the true gradient of this parameter; that of all together is {norm:.2g}.",
    "MB: tensors alive at once, without weights and data. back: how far the solve back misses the start of a block.",
)


def model_report(name: str, rows: Sequence[ModelRow], reference: Mapping[str, Any], verdict: Verdict) -> AuditReport:
    """The report on a model; `reference` holds the numbers of the solve that stands for the ODE."""
    solved = [row for row in rows if row.made is not None]
    tables = [Table(f"Gradients of {name}", [_main_row(row) for row in rows])]
    if solved:
        tables.append(Table("Part by part", [line for row in solved for line in _part_rows(row)]))
        tables.append(Table("The parameter that is furthest off the ODE", [_worst_row(row) for row in solved]))
        times = [line for row in solved for line in _time_rows(row)]
        tables += [Table("Gradients of the times", times)] if times else []
    failures = [f"{row.case.name}: {row.failure}" for row in rows if row.made is None]
    moves, rough = percent(reference["uncertainty"]), 10 * reference["rtol"]
    notes = [*failures, *(note.format(**reference, moves=moves, rough=rough) for note in NOTES)]
    details = {"model": name, "reference": dict(reference), "cases": [row.plain() for row in rows]}
    figures = {"model": _figure(name, solved)} if solved else {}
    return AuditReport(tables, notes, verdict.sentences(), figures, details)


def _main_row(row: ModelRow) -> dict[str, str]:
    if row.made is None or row.cost is None:
        columns = ("off the pass", "rounding", "off the ODE", "evaluations", "s", "MB", "back")
        return _case(row) | dict.fromkeys(columns, "failed")
    memory = row.cost.peak_bytes
    return _case(row) | {
        "off the pass": _error(row.against_pass),
        "rounding": "-" if row.exact is None else percent(row.rounding),
        "off the ODE": _error(row.against_ode),
        "evaluations": f"{row.cost.nfe_forward} + {row.cost.nfe_backward}",
        "s": f"{row.cost.seconds:.3g}",
        "MB": "-" if memory is None else f"{memory / 2**20:.1f}",
        "back": " ".join(two_digits(misses[0]) for misses in row.reconstruction.values()) or "failed",
    }


def _part_rows(row: ModelRow) -> list[dict[str, str]]:
    return [
        _case(row)
        | {"part": part, "off the pass": _error(ours), "cosine": _cosine(ours)}
        | {"off the ODE": _error(ode), "cosine ": _cosine(ode)}
        for part, (ours, ode) in {"all": (row.against_pass, row.against_ode), **row.parts()}.items()
    ]


def _worst_row(row: ModelRow) -> dict[str, str]:
    found = row.against_ode
    assert found is not None
    return _case(row) | {"worst": found.worst, "off": percent(found.worst_error), "norm": f"{found.worst_norm:.2g}"}


def _time_rows(row: ModelRow) -> list[dict[str, str]]:
    columns = {"made": "as made", "pass": "of the pass", "ode": "of the ODE"}
    return [
        _case(row)
        | {"dL/d": name}
        | {columns[key]: "-" if value is None else f"{value:.4g}" for key, value in values.items()}
        for name, values in row.times().items()
    ]


def _case(row: ModelRow) -> dict[str, str]:
    rtol = "-" if row.case.rtol is None else f"{row.case.rtol:g}"
    return {"solver": row.case.solver_name, "gradient": row.case.gradient_name, "rtol": rtol}


def _error(found: Difference | None) -> str:
    return "-" if found is None else percent(found.relative_error)


def _cosine(found: Difference | None) -> str:
    return "-" if found is None else f"{found.cosine:.5f}"


def _figure(name: str, rows: Sequence[ModelRow]) -> Figure:
    figure, axes = panels(4, columns=2, title=name)
    methods = {method: list(group) for method, group in groupby(rows, key=lambda row: row.case.method)}
    with_pass = {method: group for method, group in methods.items() if group[0].exact is not None}
    draw_errors(axes[0], "off the gradient of the pass", "rtol", _curves(with_pass, "rtol", "against_pass"))
    draw_errors(axes[1], "off the gradient of the ODE", "rtol", _curves(methods, "rtol", "against_ode"))
    evaluations = _curves(methods, "evaluations", "against_ode")
    draw_errors(axes[2], "off the gradient of the ODE", "evaluations, forward and backward", evaluations)
    number_counts(axes[2])
    _draw_reconstruction(axes[3], rows)
    return figure


def _curves(methods: Mapping[str, Sequence[ModelRow]], over: str, against: str) -> dict[str, Curve]:
    points = {
        method: [(_place(row, over), getattr(row, against).relative_error) for row in rows]
        for method, rows in methods.items()
    }
    return {method: [(x, error) for x, error in curve if x] for method, curve in points.items()}


def _place(row: ModelRow, over: str) -> float | None:
    assert row.cost is not None
    return row.case.rtol if over == "rtol" else row.cost.nfe_forward + row.cost.nfe_backward


def _draw_reconstruction(axes: Axes, rows: Sequence[ModelRow]) -> None:
    drawn = set()
    for row in rows:
        for block, misses in row.reconstruction.items():
            label = " ".join(part for part in (row.case.solver_name, _case(row)["rtol"], block) if part != "-")
            if label not in drawn:
                drawn.add(label)
                places = [n / (len(misses) - 1) for n in range(len(misses))]
                axes.semilogy(places[:-1], misses[:-1], label=label, marker="o", markersize=3)
    label_panel(axes, "the solve back, off the solve there", "t, from t0 (0) to t1 (1)", "relative distance")
