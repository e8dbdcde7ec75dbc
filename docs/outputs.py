"""Runs the commands that the pages show, and writes what they print below them.

A command stands in a block of ```console behind a `$`. All of them run in build/docs, page after page in the order of
the navigation, so that a page can use the runs of an earlier one, and a picture of a page can be copied from there.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "docs"
HEAD, TAIL = 12, 20  # lines of an output that are shown, if it has more than both together
BLOCK = re.compile(r"^```console\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def pages_of(nav: object) -> Iterator[Path]:
    """The pages of a navigation, in its order."""
    if isinstance(nav, str):
        yield ROOT / "docs" / nav
    else:
        for child in nav.values() if isinstance(nav, dict) else nav:
            yield from pages_of(child)


def printed_by(command: str) -> list[str]:
    """What a command prints: its standard output, and if it fails, why."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run(command, shell=True, cwd=FOLDER, env=environment, capture_output=True, text=True)
    text = ended.stdout + (ended.stderr if ended.returncode else "")
    lines = [line.rstrip() for line in text.replace(str(FOLDER), "/home/me").strip("\n").splitlines()]
    return lines if len(lines) <= HEAD + TAIL else [*lines[:HEAD], "...", *lines[-TAIL:]]


def with_outputs(block: re.Match[str]) -> str:
    """The block, its commands run again."""
    lines = []
    for command in re.findall(r"^\$ (.*)", block[1], flags=re.MULTILINE):
        print(f"$ {command}", flush=True)
        lines += [f"$ {command}", *printed_by(command)]
    return "\n".join(["```console", *lines, "```"])


def main() -> None:
    """Runs the commands of all pages."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for page in pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]):
        page.write_text(BLOCK.sub(with_outputs, page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
