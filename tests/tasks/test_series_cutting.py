import torch

from node_cli.series import MASK, SEGMENT, START, TARGET, TIMES, VALUES
from node_cli.tasks.series_cutting import first_times, jumps_between, segments, windows


def series(num_times: int, num_series: int = 2) -> dict[str, torch.Tensor]:
    """Values that are their own times, all observed; in the second series nothing is at the second time."""
    times = (
        torch.arange(num_times, dtype=torch.float64).expand(num_series, -1) + 100 * torch.arange(num_series)[:, None]
    )
    observed = torch.ones(num_series, num_times, 1, dtype=torch.bool)
    observed[1:, 1] = False
    numbers = torch.arange(num_series)
    values = torch.where(observed, times[..., None].float(), 0.0)
    return {TIMES: times, VALUES: values, MASK: observed, TARGET: observed, START: numbers, "statics": values[:, 0]}


def test_the_first_times_are_those_of_every_tensor_that_has_times():
    cut = first_times(series(7), 3)
    assert {name: tuple(tensor.shape) for name, tensor in cut.items()} == {
        TIMES: (2, 3),
        VALUES: (2, 3, 1),
        MASK: (2, 3, 1),
        TARGET: (2, 3, 1),
        START: (2,),
        "statics": (2, 1),
    }


def test_windows_begin_where_the_last_one_ended_and_count_every_observation_once_but_the_first():
    cut = windows(series(8), 4)
    assert cut[TIMES].tolist() == [
        *([0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 7, 7]),
        *([100, 101, 102, 103], [103, 104, 105, 106], [106, 107, 107, 107]),
    ]
    counted = cut[VALUES][cut[TARGET]].tolist()
    assert sorted(counted) == [1, 2, 3, 4, 5, 6, 7, 102, 103, 104, 105, 106, 107]
    assert cut[VALUES][cut[MASK]].tolist() == [0, 3, 6, 100, 103, 106]
    assert cut[START].tolist() == [-1] * 6
    assert cut["statics"].flatten().tolist() == [0, 0, 0, 100, 100, 100]


def test_a_window_shows_the_first_observation_of_each_channel_wherever_it_is():
    whole = series(5, 1)
    observed = torch.tensor([[[True, False], [True, True], [False, True], [True, False], [True, True]]])
    cut = windows({**whole, VALUES: torch.ones(1, 5, 2), MASK: observed, TARGET: observed}, 5)
    assert cut[MASK][0].tolist() == [[True, False], [False, True], *[[False, False]] * 3]
    assert torch.equal(cut[TARGET], observed & ~cut[MASK])


def test_segments_share_their_ends_and_count_every_observation_once():
    cut, count = segments(series(10), 3)
    assert count == 3
    assert cut[TIMES][:3].tolist() == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]
    assert cut[SEGMENT].tolist() == [0, 1, 2, 0, 1, 2]
    assert cut[START].tolist() == [0, 0, 0, 1, 1, 1]
    assert sorted(cut[VALUES][cut[TARGET]].tolist()) == [*range(10), 100, *range(102, 110)]


def test_more_segments_than_a_series_has_times_are_fewer():
    cut, count = segments(series(3), 9)
    assert count == 2
    assert cut[TIMES][:2].tolist() == [[0, 1], [1, 2]]


def test_the_jumps_are_those_from_the_end_of_a_piece_to_the_start_of_the_next():
    pieces = torch.tensor([[0.0, 1.0], [1.5, 2.0], [2.0, 3.0], [7.0, 8.0], [8.0, 9.0], [9.25, 9.0]])[..., None]
    assert jumps_between(pieces, 3).flatten().tolist() == [-0.5, 0.0, 0.0, -0.25]
