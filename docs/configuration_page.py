"""Writes the groups, choices and keys into configuration.md when the site is built, straight from configs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parents[1] / "configs"
MARKER = "<!-- every group and key -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this for each page; the marker stands in one of them."""
    return markdown.replace(MARKER, every_group_and_key())


def every_group_and_key() -> str:
    """A section for each command's own keys and for each group, with every YAML file as it is."""
    sections = [f"## Keys of node-{path.stem}\n\n{shown(path)}" for path in sorted(CONFIGS.glob("*.yaml"))]
    for group in sorted(path for path in CONFIGS.iterdir() if path.is_dir()):
        files = [f"### {group.name}={path.stem}\n\n{shown(path)}" for path in sorted(group.glob("*.yaml"))]
        sections.append("\n\n".join([f"## Group: {group.name}", *files]))
    return "\n\n".join(sections)


def shown(path: Path) -> str:
    """A file without what it sets of Hydra, its help text above all."""
    text = re.sub(r"^hydra:\n(?:[ \n].*\n?|\n)*", "", path.read_text("utf-8"), flags=re.MULTILINE)
    return f"```yaml\n{text.strip()}\n```"
