"""What is asked for, beside what, and which combinations there are."""

from __future__ import annotations

import optuna

from node_cli.tuning.search_space import identity, parse

SPACE = {
    "optimizer": ["adam", "sgd"],
    "optimizer.momentum": {"low": 0.0, "high": 1.0, "step": 0.4, "when": {"optimizer": "sgd"}},
    "model.width": {"low": 2, "high": 3},
    "trainer.clip_norm": None,
}


def test_every_combination_once_and_a_conditional_key_beside_its_value_alone():
    found = list(parse(SPACE).combinations())
    assert [params for params in found if params["optimizer"] == "adam"] == [
        {"optimizer": "adam", "model.width": 2},
        {"optimizer": "adam", "model.width": 3},
    ]
    assert sorted(params["optimizer.momentum"] for params in found if params["optimizer"] == "sgd") == [
        0,
        0,
        0.4,
        0.4,
        0.8,
        0.8,
    ]
    assert len({identity(params) for params in found}) == len(found) == 8


def test_what_is_drawn_is_one_of_the_combinations():
    space = parse(SPACE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    drawn = [space.suggest(study.ask()) for _ in range(30)]
    assert {identity(params) for params in drawn} <= {identity(params) for params in space.combinations()}
    assert {"optimizer.momentum" in params for params in drawn} == {True, False}


def test_a_range_without_steps_has_no_end_of_combinations():
    assert parse(SPACE).endless == []
    assert parse(SPACE | {"optimizer.lr": {"low": 1e-4, "high": 1, "log": True}}).endless == ["optimizer.lr"]
    assert parse({"model.width": {"low": 2, "high": 9, "log": True}}).parameters[0].values == [2, 3, 4, 5, 6, 7, 8, 9]


def test_more_values_than_a_grid_can_have_are_drawn_without_being_listed():
    whole, stepped = parse(
        {"seed": {"low": 0, "high": 10**15}, "optimizer.lr": {"low": 0, "high": 1, "step": 1e-12}}
    ).parameters
    assert (whole.values, stepped.values) == (None, None)
    assert stepped.edges == (0, 1)
    assert len(parse({"seed": {"low": 1, "high": 10_000}}).parameters[0].values) == 10_000


def test_steps_that_do_not_come_to_high_end_below_it():
    (parameter,) = parse({"optimizer.lr": {"low": 1, "high": 2, "step": 0.3}}).parameters
    assert parameter.edges == (1.0, 1.9)
    assert all(type(value) is float for value in parameter.edges)


def test_examples_hold_every_key_and_only_what_goes_together():
    space = parse(
        {
            "solver": ["a", "b", "c"],
            "solver.x": {"low": 1, "high": 2, "when": {"solver": "b"}},
            "solver.y": {"low": 1, "high": 2, "when": {"solver.x": 1}},
        }
    )
    examples = list(space.examples())
    assert {key for params in examples for key in params} == set(space.keys)
    assert all(
        parameter.is_asked_for(params)
        for params in examples
        for parameter in space.parameters
        if parameter.key in params
    )
    assert examples[-1] == {"solver": "b", "solver.x": 1, "solver.y": 1}


def test_numbers_that_are_the_same_but_for_rounding_are_one():
    assert identity({"a": 0.1 + 0.2, "b": True}) == identity({"b": True, "a": 0.3})
    assert identity({"a": 1}) != identity({"a": "1"})
    assert identity({"a": True}) != identity({"a": 1})
