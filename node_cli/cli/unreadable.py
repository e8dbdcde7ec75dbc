"""What to type instead of a word that Hydra cannot read: its own grammar explains itself to no one."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from node_cli.cli.overrides import quoted

FOLDERS = {"node-train": "resume", "node-eval": "run", "node-audit": "run"}  # the key that takes a run folder


def advice(word: str, program: str) -> str:
    """What to type, and the reason; nothing, if no reason is known."""
    raw_key, equals, raw_value = word.partition("=")
    key, value = raw_key.strip(), raw_value.strip()
    if not equals:
        return _without_a_value(word, program)
    if not re.fullmatch(r"[+~]{0,2}[\w./@-]+", key, re.ASCII):
        return f"no key is called {key}" if key else "write key=value"
    if raw_key != key and _can_be_read(f"{key}={value}"):
        return f"leave the spaces out, {key}={value}"
    if value.startswith("="):
        return f"one = is enough, {key}={value.lstrip('=')}"
    if value.startswith("~/"):
        return f"~ stands for no folder here, {_for_a_shell(f'{key}=$HOME{value[1:]}')}"
    opened, closed = (sum(value.count(bracket) for bracket in kind) for kind in ("[{(", ")]}"))
    if opened != closed:
        return f"{opened} brackets open and {closed} close in it"
    if opened == 0 and "" in [part.strip() for part in value.split(",")]:
        return f"there is nothing before or after a comma, write {key}={','.join(filter(None, value.split(',')))}"
    whole = f"{key}={quoted(value)}"
    return f"quote the value, {_for_a_shell(whole)}" if _can_be_read(whole) else ""


def _without_a_value(word: str, program: str) -> str:
    if program in FOLDERS and Path(word).is_dir():
        return f"write {FOLDERS[program]}={word}"
    if program == "node-train" and word.endswith(".npz") and os.path.exists(word):
        return f"write dataset=npz dataset.path={word}"
    return "write key=value, without spaces"


def _can_be_read(word: str) -> bool:
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:  # which its lexer raises as it stands
        return False
    return True


def _for_a_shell(word: str) -> str:
    """The word as one that is typed, in quotes that no shell looks into."""
    if "$HOME" in word:
        return word
    return shlex.quote(word) if set('"$`!').intersection(word) or "\\\\" in word else f'"{word}"'
