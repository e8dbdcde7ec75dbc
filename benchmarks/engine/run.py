"""A case from its contenders to its rows, and the rows as a table."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.engine import alone
from benchmarks.engine.cases import CASES
from benchmarks.engine.contender import Bare, Case, Contender, Mode, Step
from benchmarks.engine.measure import (
    SLOW_SECONDS,
    gradient_errors,
    in_turn,
    machine,
    percent,
    relative_error,
    seconds,
    spread,
    table,
    times,
)
from benchmarks.engine.peak import MIB, gpu_peak_of
from benchmarks.engine.problems import NUM_BATCHES

HEADER = "|{unit} (quartiles)|times {peer}|times diffrax|evaluations|solution error|gradient error|worst"
HEADER += "|compile, s|from cache, s|peak MiB|time / limit"


def run(name: str, rounds: int, *, batch: int, only: str = "", processes: bool = True) -> dict[str, Any]:
    """Rows of all whose mode `only`, a regular expression, finds; peers of theirs take part too.

    With `processes`, each is also started in a process of its own, for its compile time and peak memory.
    """
    case = CASES[name]
    entries = dict(case.entries(batch))
    assert len({mode.name for mode in entries}) == len(entries)
    chosen = {mode for mode in entries if re.search(only, mode.name)}
    if not chosen:
        raise SystemExit(f"--only {only}: finds none of {', '.join(mode.name for mode in entries)}")
    chosen |= {case.peers[mode.gradient] for mode in chosen}
    # Where a first step comes from changes neither compile time nor memory.
    alone_too = {mode for mode in chosen if processes and (mode.solver != "ours" or mode.first_step == "carried")}
    on_their_own = {mode: alone.measured(name, batch, mode) for mode in entries if mode in alone_too}
    solution, gradients = case.reference(batch)
    contenders = {mode: build() for mode, build in entries.items() if mode in chosen}
    peaks = {mode: _gpu_peak(mode, contender) for mode, contender in contenders.items() if case.device == "cuda"}
    steps: dict[str, Step] = {mode.name: contender.step for mode, contender in contenders.items()}
    for contender in contenders.values():
        steps |= contender.bare.steps() if contender.bare else {}
    seconds_of = in_turn(steps, rounds, wait=torch.cuda.synchronize if case.device == "cuda" else lambda: None)
    rows = [
        asdict(mode)
        | _timed(case, mode, contender, seconds_of)
        | _checked(contender, solution, gradients)
        | on_their_own.get(mode, {})
        | peaks.get(mode, {})
        for mode, contender in contenders.items()
    ]
    about = {"batch": batch, "rtol": case.tolerance, "atol": case.tolerance, "rounds": rounds}
    return {
        "title": case.title,
        "peer": case.peer,
        **about,
        "unit": case.unit,
        "machine": machine(case.device),
        "rows": rows,
    }


def _gpu_peak(mode: Mode, contender: Contender) -> dict[str, Any]:
    """By torch, so not of others."""
    if mode.solver == "diffrax":
        return {}
    return {"peak_bytes": gpu_peak_of(lambda: contender.step(0), alone.NUM_FIRST)}


def _timed(case: Case, mode: Mode, contender: Contender, seconds_of: Mapping[str, np.ndarray]) -> dict[str, Any]:
    own, peer = seconds_of[mode.name], seconds_of[case.peers[mode.gradient].name]
    diffrax = [values for name, values in seconds_of.items() if name.startswith("diffrax, checkpoint")]
    is_slow = own.min() > SLOW_SECONDS
    counts = np.median([contender.count(n) for n in range(1 if is_slow else NUM_BATCHES)], axis=0)
    limit = None if contender.bare is None else _limit(contender.bare, mode.gradient, counts, seconds_of)
    return {
        "seconds": spread(own),
        "times_peer": spread(_paired(peer, own)),
        "times_diffrax": spread(_paired(diffrax[0], own)) if diffrax else None,
        "nfe_forward": counts[0],
        "nfe_backward": counts[1],
        "over_limit": None if limit is None else spread(_paired(own, limit)),
    }


def _paired(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Round by round, through as many as both took part in."""
    shared = min(len(over), len(under))
    return over[:shared] / under[:shared]


def _limit(bare: Bare, gradient: str, counts: np.ndarray, seconds_of: Mapping[str, np.ndarray]) -> np.ndarray:
    """Seconds of the evaluations that a step made and of the other layers, in each round.

    An evaluation that backpropagation goes through costs its backward pass too; where backward solves make evaluations
    of their own, those are the ones.
    """
    forward, both, others = (seconds_of[key] for key in bare.steps())
    if gradient == "direct":
        return counts[0] * both / bare.EVALUATIONS + others
    return (counts[0] * forward + counts[1] * both) / bare.EVALUATIONS + others


def _checked(contender: Contender, solution: Tensor, gradients: Mapping[str, Tensor]) -> dict[str, Any]:
    found, found_gradients = contender.outcome()
    as_tensors = {name: _as_tensor(value) for name, value in found_gradients.items()}
    return {"solution_error": relative_error(_as_tensor(found), solution), **gradient_errors(as_tensors, gradients)}


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(np.asarray(value))


def markdown(result: dict[str, Any]) -> str:
    """The table, and what it holds for."""
    rows = [
        [
            Mode(**{key: row[key] for key in Mode.__dataclass_fields__}).name,
            seconds(row["seconds"], result["unit"]),
            times(row["times_peer"]),
            times(row["times_diffrax"]),
            f"{row['nfe_forward']:.0f} + {row['nfe_backward']:.0f}",
            *(percent(row[key]) for key in ("solution_error", "gradient_error", "worst_error")),
            *(_shown(row.get(key)) for key in ("compile_seconds", "cached_compile_seconds")),
            _shown(row.get("peak_bytes"), MIB),
            times(row["over_limit"]),
        ]
        for row in result["rows"]
    ]
    tolerance = "fixed steps" if result["rtol"] is None else f"rtol = atol = {result['rtol']:g}"
    held = f"batch {result['batch']}, {tolerance}, {result['rounds']} rounds"
    return f"{result['title']}; {held}\n\n{table(HEADER.format(**result).split('|'), rows)}"


def _shown(value: float | None, unit: float = 1) -> str:
    return "" if value is None else f"{value / unit:.3g}"


if __name__ == "__main__":
    case_name, options = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(CASES[case_name].threads)
    found = run(case_name, options["rounds"], **options["more"])
    Path(options["out"]).write_text(json.dumps(found))
