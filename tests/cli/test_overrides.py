"""What is quoted is read as it was, by Hydra and by a shell."""

import itertools
import shlex

import pytest

from node_cli.cli.overrides import going_on, plain_or_quoted, quoted, value_of

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


@pytest.mark.parametrize("write", [quoted, plain_or_quoted])
def test_a_name_comes_back(write):
    wrong = [name for name in [*NAMES, *ODD] if value_of(f"resume={write(name)}") != name]
    assert wrong == []


@pytest.mark.parametrize(
    ("typed", "text"),
    {"runs/a": "runs/a", "'a b'": "a b", '"a"': "a", "1_000": "1_000", "a b": "a b", "": ""}.items(),
)
def test_what_is_typed_without_quotes_is_taken_as_it_stands(typed, text):
    assert value_of(f"resume={typed}") == text


def test_the_command_that_goes_on_names_what_only_a_command_line_may():
    words = ["model=small", "packages=[my lab]", "+seed=3"]
    for name in ODD:
        shown = going_on(f"resume={plain_or_quoted(name)}", words, "my files")
        program, *typed, last = shlex.split(shown)
        assert (program, typed) == ("node-train", ["--config-dir", "my files", "packages=[my lab]"])
        assert value_of(last) == name
    assert going_on("sweep.resume=a/b", [], None, is_sweep=True) == "node-train -m sweep.resume=a/b"
