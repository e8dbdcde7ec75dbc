import math

import pytest
import torch

from node_cli.series import MASK, TARGET, TIMES, VALUES
from node_cli.tasks.forecast_metrics import (
    by_horizon,
    constant_velocity,
    great_circle,
    made,
    persistence,
    rms,
    same_as_last_season,
    steps_ahead,
)

NAN = math.nan


def shown(values: list[float], mask: list[bool], times: list[float] | None = None) -> dict[str, torch.Tensor]:
    place = torch.tensor([times or list(range(len(values)))], dtype=torch.float64)
    seen = torch.tensor(mask)[None, :, None]
    return {TIMES: place, VALUES: torch.tensor(values)[None, :, None], MASK: seen, TARGET: ~seen}


def flat(tensor: torch.Tensor) -> list[float]:
    return tensor.flatten().tolist()


def test_persistence_is_the_last_value_seen_before():
    batch = shown([1.0, 2.0, 0.0, 4.0, 0.0, 0.0], [True, True, False, True, False, False])
    assert flat(persistence(batch)) == pytest.approx([NAN, 1, 2, 2, 4, 4], nan_ok=True)


def test_constant_velocity_is_the_line_through_the_last_two_at_their_own_times():
    batch = shown([1.0, 3.0, 0.0, 0.0], [True, True, False, False], [0.0, 0.5, 1.0, 3.0])
    assert flat(constant_velocity(batch)) == pytest.approx([NAN, NAN, 5, 13], nan_ok=True)


def test_last_season_is_the_latest_one_that_was_seen():
    batch = shown([1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0], [True] * 4 + [False] * 3)
    assert flat(same_as_last_season(batch, 2)) == pytest.approx([NAN, NAN, 1, 2, 3, 4, 3], nan_ok=True)
    assert flat(same_as_last_season(batch, 9)) == pytest.approx([NAN] * 7, nan_ok=True)


def test_steps_ahead_count_from_the_last_time_that_anything_was_seen_at():
    batch = shown([1.0] * 5, [True, False, False, True, False])
    assert flat(steps_ahead(batch)) == [0, 1, 2, 3, 1]


def test_a_quarter_of_the_equator_and_two_poles():
    places = torch.tensor([[0.0, 0.0], [90.0, 10.0], [5.0, 179.5]])
    others = torch.tensor([[0.0, 90.0], [-90.0, 40.0], [5.0, -179.5]])
    quarter = 6371 * math.pi / 2
    degree = 6371 * 2 * math.asin(math.cos(math.radians(5)) * math.sin(math.radians(0.5)))
    assert great_circle(places, others).tolist() == pytest.approx([quarter, 2 * quarter, degree])


def test_errors_by_horizon_are_of_all_samples_that_look_so_far_ahead():
    first, second = shown([0.0] * 4, [True, False, False, False]), shown([0.0] * 4, [True, True, False, False])
    batch = {name: torch.cat([first[name], second[name]]) for name in first}
    error = torch.tensor([[0.0, 3.0, 5.0, 7.0], [0.0, 0.0, 4.0, NAN]])[..., None]
    measures = {"rmse": lambda where: rms(error[where]), "persistence_rmse": lambda where: rms(made(error[where]))}
    found = by_horizon(batch, 10 * batch[TIMES], measures)
    assert (found["steps"], found["time"]) == ([1, 2, 3], [10, 20, 30])
    assert found["metrics"]["persistence_rmse"] == pytest.approx([math.sqrt((9 + 16) / 2), 5, 7])
    assert found["metrics"]["rmse"] == pytest.approx([math.sqrt((9 + 16) / 2), NAN, 7], nan_ok=True)
