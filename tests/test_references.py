"""What a value may refer to, and how much it may stand for."""

import pytest
from omegaconf import OmegaConf

from node_cli.config import ConfigError, resolved

FORTY = range(1, 41)


@pytest.mark.parametrize(
    ("values", "key", "expected"),
    [
        ({"a": "${b.c}-${b.d}", "b": {"c": 1, "d": [2]}}, "a", "1-[2]"),
        ({"a": {"b": "${.c}", "c": "${..d}", "d": 4}, "d": 3}, "a", {"b": 3, "c": 3, "d": 4}),
        ({"a": "${b.1}", "b": ["x", "${c}"], "c": "y"}, "a", "y"),
        ({"a": "${b.c}", "b": "${d}", "d": {"c": 1}}, "a", 1),
        ({"a": {"b": "${a.c}", "c": 1}}, "a", {"b": 1, "c": 1}),
        ({"a": "costs $5 {x}"}, "a", "costs $5 {x}"),
    ],
)
def test_other_keys(values, key, expected):
    assert resolved(OmegaConf.create(values))[key] == expected


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "${oc.env:NONE,x}",
        "${oc.decode:'${b}'}",
        "${oc.create:{_target_: os.system}}",
        "${oc.${b}:HOME}",
        "${${b}:HOME}",
        "${a.${b}}",
        "${oc.select:b}",
        "${hydra:runtime.cwd}",
        "${now:${oc.env:HOME}}",
        "a ${b} and ${oc.env:HOME}",
        "\\${oc.env:HOME}",
    ],
)
@pytest.mark.parametrize("nest", [lambda text: text, lambda text: [[text]], lambda text: {"x": text}])
def test_nothing_but_keys_and_the_time(text, nest, monkeypatch):
    monkeypatch.setenv("HOME", "secret")
    with pytest.raises(ConfigError, match=r"^a[.0x]* must refer to other keys \(\${key}\) or to \${now:%Y} alone, got"):
        resolved(OmegaConf.create({"a": nest(text), "b": "env"}))


@pytest.mark.parametrize("item", ["${{a{0}}}" * 2, ["${{a{0}}}"] * 2, {"x": "${{a{0}}}", "y": "${{a{0}}}"}])
def test_references_to_references_unfold_to_no_more_than_a_memory_holds(item):
    def filled(node, number):
        if isinstance(node, dict):
            return {key: filled(child, number) for key, child in node.items()}
        return [filled(child, number) for child in node] if isinstance(node, list) else node.format(number)

    values = {"a0": "x", **{f"a{number}": filled(item, number - 1) for number in FORTY}}
    with pytest.raises(ConfigError, match="stands for more than 1,000,000 characters"):
        resolved(OmegaConf.create(values))


def test_many_large_ones_together():
    values = {"a": "x" * 900_000, **{f"b{number}": "${a}" for number in FORTY}}
    with pytest.raises(ConfigError, match="the config stands for more than 1,000,000 characters, with its references"):
        resolved(OmegaConf.create(values))


@pytest.mark.parametrize(
    "values",
    [{"a": "${a}"}, {"a": "${b}", "b": "x${a}"}, {"a": {"b": "${a}"}}, {"a": ["${b}"], "b": {"c": "${a.0}"}}],
)
def test_what_refers_to_itself(values):
    with pytest.raises(ConfigError, match="refers to itself"):
        resolved(OmegaConf.create(values))
