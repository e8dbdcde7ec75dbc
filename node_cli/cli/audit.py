"""`node-audit`: are these gradients right, and why not?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from node_cli.audit.parts import AuditedParts
from node_cli.cli.app import launch
from node_cli.cli.compose import CommandLine, Composed, composed_by, hydra_ready
from node_cli.cli.overrides import override, with_data_of_run
from node_cli.config import KEYS, ConfigError
from node_cli.runs.folder import RunFolder
from node_cli.trust import untrusted_parts


def main() -> None:
    """The entry point."""
    launch("audit", run, expand=with_data_of_run)


def run(composed: Composed) -> None:
    """Audits one config; torch is imported only now that the command line has proved sound."""
    config = composed.config
    typed = [each.key for each in composed.overrides]
    problems = _without_effect(config, typed, composed.choices)
    if problems:
        raise ConfigError("\n".join(problems))
    line = CommandLine("audit", [], composed.own_files)
    with hydra_ready(line):
        beside = _named("solver", config["beside"], line)
        others = [name for name in config["gradients"] if name != composed.choices["gradient"]]
        named = _named("gradient", others, line)
    gradients = {name: named.get(name, config["gradient"]) for name in config["gradients"]}
    problems = untrusted_parts({"solver": beside, "gradient": gradients}, config["packages"])
    if problems:
        raise ConfigError("\n".join(problems))
    folder = RunFolder(_run_dir(config, composed.sweep_dir))
    try:
        folder.lock()

        from node_cli.commands.audit import run_audit

        run_audit(config, AuditedParts(beside, gradients, typed), folder)
    finally:
        folder.unlock()


def _without_effect(config: dict[str, Any], typed: Sequence[str], choices: Mapping[str, str]) -> list[str]:
    """A line for each key that was typed and would have no effect."""
    groups = {key.partition(".")[0] for key in typed}
    others = groups - {"dataset"}  # of which nothing but its place gets here beside a run
    gradient, names = choices["gradient"], ",".join(config["gradients"])
    lines = ["trainer has no effect on an audit: leave it out"] if "trainer" in groups else []
    if config["run"] is not None:
        lines += [
            f"{key} has no effect with run=..., which brings its own"
            for key in KEYS
            if key in others and KEYS[key].from_run
        ]
        if "solver" in groups and "solver" not in typed:
            lines.append("solver: with run=..., choose one too (solver=dopri5), or leave it out for the run's own")
    elif "checkpoint" in groups:
        lines.append("checkpoint has no effect without run=...")
    if "solver.rtol" in typed:
        lines.append(
            "solver.rtol has no effect: rtols=[...] says at which tolerances (solver.atol keeps its proportion)"
        )
    if "gradient" in groups and gradient not in config["gradients"]:
        lines.append(f"gradient={gradient} is not among gradients=[{names}]: add it")
    return lines


def _named(group: str, names: Sequence[str], line: CommandLine) -> dict[str, Any]:
    """The parts of these names, each as its YAML stands."""
    lines = {name: replace(line, overrides=[override(group, name)]) for name in names}
    return {name: composed_by(each).config[group] for name, each in lines.items()}


def _run_dir(config: dict[str, Any], job_dir: str | None) -> Path:
    """Where the audit is written: a folder of its own.

    Raises:
        ConfigError: something is there already.
    """
    now = datetime.now()
    if config["run_dir"] is not None:
        path = Path(config["run_dir"])
    elif job_dir is not None:
        path = Path(job_dir)
    elif config["run"] is not None:
        path = RunFolder.of(config["run"]).path / "audits" / now.strftime("%Y-%m-%d-%H-%M-%S-%f")
    else:
        path = Path("outputs/audits") / now.strftime("%Y-%m-%d") / now.strftime("%H-%M-%S-%f")
    if path.is_dir() and any(path.iterdir()):
        raise ConfigError(f"run_dir={path} is not empty: set a folder of its own")
    return path


if __name__ == "__main__":
    main()
