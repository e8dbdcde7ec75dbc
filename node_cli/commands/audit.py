"""One audit from a sound config to a finished folder: build, measure, write, print."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from node_cli.advice import in_keys
from node_cli.audit.base import AuditProblem, AuditReport, Case, Tick, make_cases, write_json
from node_cli.audit.parts import AuditedParts
from node_cli.build import (
    Problem,
    audits_a_model,
    build_audit,
    build_gradient,
    build_loggers,
    build_problem,
    build_solver,
)
from node_cli.config import PLACES, ConfigError
from node_cli.figures import file_of, image_of
from node_cli.files import write_whole
from node_cli.ode.solution import SolveError
from node_cli.runs.folder import RunFolder
from node_cli.runs.moved_data import data_moved
from node_cli.runs.outcome import RunFailedError
from node_cli.runs.summary import git_commit, versions
from node_cli.runs.trained_run import FROM_RUN, config_of_run, load_weights
from node_cli.training.machine import set_num_threads

OF_A_MODEL = (*FROM_RUN, "device", "run")


def run_audit(config: dict[str, Any], parts: AuditedParts, folder: RunFolder) -> None:
    """Measures every case, writes `audit.json`, figures and events to `folder`, and prints tables and verdict.

    Raises:
        ConfigError: a part refuses its settings, or what it is asked to go with; there is no such run.
        RunFailedError: a solve failed where none should.
    """
    started = time.time()
    set_num_threads(config["num_threads"])
    moved: list[str] = []
    if config["run"] is not None:
        config, parts = _of_the_run(config, parts)
        moved = data_moved(config, RunFolder.of(config["run"]))
    cases, left_out = _cases(config, parts)
    config["rtols"] = sorted({case.rtol for case in cases if case.rtol is not None}, reverse=True)
    problem, about_run = _problem(config | {"gradient": parts.gradients[cases[0].gradient_name]}, parts)
    audit = build_audit(config, problem)
    try:
        report = _measure(audit, cases)
    except SolveError as error:
        raise RunFailedError(in_keys(error)) from error
    notes = [*moved, *about_run, *left_out, *report.notes]
    tables = [table.lines() for table in report.tables]
    text = "\n\n".join("\n".join(lines) for lines in [*tables, notes, [report.verdict]] if lines)
    seconds = time.time() - started
    asked = config | {"gradients": parts.gradients, "beside": parts.beside}
    _write(asked, report, text, notes, folder, seconds)
    sys.stdout.write(f"\n{text}\n\n{folder.path}\n")


def _of_the_run(config: dict[str, Any], parts: AuditedParts) -> tuple[dict[str, Any], AuditedParts]:
    """The same with what the run was trained with, but for what was typed."""
    trained = config_of_run(config, is_moved=any(key in PLACES for key in parts.typed))
    groups = {key.partition(".")[0] for key in parts.typed} - {"dataset"}
    keys = [key for key in (*FROM_RUN, "solver") if key not in groups]
    gradients = parts.gradients
    if "gradient" not in groups:
        own = trained["gradient"]
        gradients = {name: own if node["_target_"] == own["_target_"] else node for name, node in gradients.items()}
    config = config | {key: trained[key] for key in keys if key in trained}
    if "rtols" not in groups and "rtol" in config["solver"]:  # the tolerance of the run belongs into the table
        config["rtols"] = sorted({*config["rtols"], config["solver"]["rtol"]}, reverse=True)
    return config, replace(parts, gradients=gradients)


def _cases(config: dict[str, Any], parts: AuditedParts) -> tuple[list[Case], list[str]]:
    own = _solver_name(config["solver"])
    if own in parts.beside:
        raise ConfigError(f"beside=[{own}] names the solver itself: leave it out")
    solvers = {name: build_solver(config | {"solver": node}) for name, node in parts.beside.items()}
    gradients = {name: build_gradient(config | {"gradient": node}) for name, node in parts.gradients.items()}
    solvers = {own: build_solver(config)} | solvers
    if "rtols" in parts.typed and not any(solver.has_tolerances for solver in solvers.values()):
        raise ConfigError(f"rtols has no effect on solver={own}, which has no tolerances: leave it out")
    return make_cases(solvers, gradients, config["rtols"])


def _solver_name(node: dict[str, Any]) -> str:
    """The method of our own solvers, the class of others."""
    name = str(node["_target_"].rpartition(".")[2])
    return str(node["method"]) if name in ("Adaptive", "Fixed") else name.lower()


def _problem(config: dict[str, Any], parts: AuditedParts) -> tuple[Problem | None, list[str]]:
    """What the audit needs of a model, with the weights of the run if there is one; what is to be said of that."""
    if not audits_a_model(config):
        groups = {key.partition(".")[0] for key in parts.typed}
        idle = [key for key in OF_A_MODEL if key in groups]
        if idle:
            raise ConfigError(f"{', '.join(idle)}: no effect on this problem; leave it out, or take problem=model")
        return None, []
    problem = build_problem(config, is_new=config["run"] is None)
    return problem, [] if config["run"] is None else load_weights(problem.model, problem.dataset.digest, config)


def _measure(audit: AuditProblem, cases: list[Case]) -> AuditReport:
    """The report; meanwhile a bar, or where no terminal shows one a line for each measurement."""
    total = audit.num_measurements(cases)
    with tqdm(total=total, disable=None, unit="measurement", dynamic_ncols=True) as bar:
        report = audit.audit(cases, _ticker(bar, total))
        bar.update()
        return report


def _ticker(bar: Any, total: int) -> Tick:
    """What is named is under way; what was named before is done."""
    named: list[str] = []

    def tick(what: str) -> None:
        bar.set_postfix_str(what, refresh=False)
        bar.update(bool(named))
        bar.refresh()
        named.append(what)
        if bar.disable and sys.stderr is not None:
            with suppress(OSError):  # nobody reads it
                print(f"measurement {len(named)} of {total}: {what}", file=sys.stderr, flush=True)

    return tick


def _write(
    config: dict[str, Any], report: AuditReport, text: str, notes: list[str], folder: RunFolder, seconds: float
) -> None:
    logger = build_loggers(config, folder.path, None)
    try:
        logger.log_text("audit", text)
        for name, figure in report.figures.items():
            write_whole(folder.path / f"{name}.png", file_of(figure))
            if logger.takes_images:
                logger.log_image(0, f"audit/{name}", image_of(figure))
    finally:
        logger.close()
    content = {
        "verdict": report.verdict,
        "notes": notes,
        **report.details,
        "seconds": seconds,
        "versions": versions(),
        "git_commit": git_commit(),
        "config": config,
    }
    write_json(content, folder.path / "audit.json")
