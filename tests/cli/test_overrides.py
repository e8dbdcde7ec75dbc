"""What is quoted is read as it was, by Hydra and by a shell."""

import itertools
import re
import shlex
from pathlib import Path

import pytest

import node_cli
from node_cli.cli.overrides import going_on, override, parse, plain_or_quoted, quoted

NAMES = ["".join(chars) for length in (1, 2, 3) for chars in itertools.product("a\\'\" =,", repeat=length)]
ODD = [
    "runs/a b",
    "it's",
    "1e5",
    "007",
    "null",
    "True",
    "2026-11-21",
    "{x}",
    "[1]",
    "a\\",
    "${x}",
    "naïve",
    "~/x",
    "a:b",
]


def given(text):
    (override,) = parse([text])
    return override.given


@pytest.mark.parametrize("write", [quoted, plain_or_quoted])
def test_a_name_comes_back(write):
    wrong = [name for name in [*NAMES, *ODD] if given(f"resume={write(name)}") != name]
    assert wrong == []


@pytest.mark.parametrize(
    ("typed", "text"),
    {"runs/a": "runs/a", "'a b'": "a b", '"a"': "a", "1_000": "1_000", "a b": "a b", "": ""}.items(),
)
def test_what_is_typed_without_quotes_is_taken_as_it_stands(typed, text):
    assert given(f"resume={typed}") == text


def test_the_command_that_goes_on_names_what_only_a_command_line_may():
    overrides = parse(["model=small", "packages=[my lab]", "+seed=3"])
    for name in ODD:
        shown = going_on("resume", Path(name), overrides, "my files")
        program, *typed, last = shlex.split(shown)
        assert (program, typed) == ("node-train", ["--config-dir", "my files", "packages=[my lab]"])
        assert given(last) == str(Path(name))
    assert going_on("sweep.resume", Path("a/b"), [], None) == "node-train -m sweep.resume=a/b"


@pytest.mark.parametrize(
    ("text", "key", "prefix", "value", "raw"),
    [
        ("solver.rtol=1e-3", "solver.rtol", "", 1e-3, "1e-3"),
        ("+a.b={c: 1}", "a.b", "+", {"c": 1}, "{c: 1}"),
        ("++a='x=y'", "a", "++", "x=y", "'x=y'"),
        ("~trainer.epochs", "trainer.epochs", "~", None, ""),
        ("run_dir='a=b'", "run_dir", "", "a=b", "'a=b'"),
        ("hydra/launcher=joblib", "hydra/launcher", "", "joblib", "joblib"),
    ],
)
def test_what_an_override_is_made_of(text, key, prefix, value, raw):
    (read,) = parse([text])
    assert (read.text, read.key, read.prefix, read.value, read.raw) == (text, key, prefix, value, raw)
    assert not read.is_sweep


def test_an_override_that_is_written_is_read_as_the_same_value():
    for value in [None, True, 3, 1e-5, "a,b", "null", ["a b", 1.0, False]]:
        assert override("k", value).value == value


def test_nothing_else_takes_an_override_apart():
    """Neither by its "=" nor by its prefix: one that did broke the restart of workers under --config-dir."""
    by_sign, by_prefix = r'r?(?:partition|split|find|index)\("="', r'(?:l?strip|removeprefix|startswith)\("[+~]'
    by_text = r'startswith\("\w+="\)|OverridesParser'
    splitter = re.compile("|".join([by_sign, by_prefix, by_text]))
    files = Path(node_cli.__file__).parent.rglob("*.py")
    assert [path.name for path in files if splitter.search(path.read_text())] == ["overrides.py"]
