"""Runs the commands that the pages show, and writes what they print below them: `python docs/outputs.py [PAGE ...]`.

A command stands in a block of ```console behind a `$`. All of them run in one empty folder, page after page in the
order of the navigation, so that a page can use the runs of an earlier one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```console\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)


def pages(nav: object) -> list[Path]:
    """The pages of the navigation, in its order."""
    if isinstance(nav, str):
        return [ROOT / "docs" / nav]
    children = nav.values() if isinstance(nav, dict) else nav
    return [page for child in children for page in pages(child)]


def with_outputs(block: re.Match[str], folder: str) -> str:
    """The block with the present outputs of its commands."""
    lines = []
    for command in re.findall(r"^\$ (.*)", block[1], flags=re.MULTILINE):
        print(f"$ {command}", flush=True)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ended = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env={**os.environ, "PATH": path, "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines += [f"$ {command}", *(line.rstrip() for line in ended.stdout.strip("\n").splitlines())]
    return "\n".join(["```console", *lines, "```"])


def main() -> None:
    """Rewrites the pages named, or all; the others run too, since pages use the runs of earlier ones."""
    named = [Path(name).resolve() for name in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as folder:
        for page in pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]):
            text = page.read_text("utf-8")
            written = BLOCK.sub(lambda block: with_outputs(block, folder), text)
            if not named or page in named:
                page.write_text(written, "utf-8")


if __name__ == "__main__":
    main()
