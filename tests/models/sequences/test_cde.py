"""Neural CDEs against closed forms, and the paths that drive them."""

import numpy as np
import pytest
import torch
from encoders import encoder, irregular, picked
from scipy.interpolate import CubicHermiteSpline

from node_cli.models.sequences.control import CONTROLS_BETWEEN, HermitePath, points
from node_cli.models.sequences.reading import Reading
from node_cli.series import CONTROLS, MASK, STATICS, TIMES, VALUES

FINE = ("dopri5", {"rtol": 1e-8, "atol": 1e-8, "first_step": "chosen"})


class Linear(torch.nn.Module):
    """f(z) of dz = sum_i A_i z dX_i, for matrices `(channels, width, width)`."""

    def __init__(self, matrices):
        super().__init__()
        self.matrices = torch.nn.Parameter(matrices)

    def forward(self, z, place):
        return torch.einsum("cij,nj->nic", self.matrices, z)


def linear_cde(matrices, control):
    made = encoder(f"cde {control}", solver=FINE, channels=1)
    made.block.vector_field = Linear(matrices)
    return made


def start_and_end(made, batch):
    return made.initial(points(Reading.of(batch), counts=False)[:, 0]), made(batch)[:, -1]


@pytest.mark.parametrize("control", ["linear", "rectilinear"])
def test_a_linear_cde_is_a_product_of_matrix_exponentials(control):
    generator = torch.Generator().manual_seed(0)
    matrices, batch = torch.randn(2, 3, 3, generator=generator).double(), irregular(5, 3, channels=1)
    made = linear_cde(matrices, control)
    expected, end = start_and_end(made, batch)
    knots = points(Reading.of(batch), counts=False)
    for rise in knots.diff(dim=1).unbind(1):
        turns = torch.einsum("nc,cij->ncij", rise, matrices)
        for turn in (turns[:, 0], turns[:, 1]) if control == "rectilinear" else (turns.sum(1),):
            expected = (turn.matrix_exp() @ expected[..., None]).squeeze(2)
    torch.testing.assert_close(end, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("control", CONTROLS_BETWEEN)
def test_a_linear_cde_of_one_matrix_depends_on_the_ends_of_its_path_alone(control):
    generator = torch.Generator().manual_seed(0)
    matrix, batch = torch.randn(3, 3, generator=generator).double(), irregular(6, 4, channels=1)
    made = linear_cde(torch.stack([matrix, -0.5 * matrix]), control)
    start, end = start_and_end(made, batch)
    knots = points(Reading.of(batch), counts=False)
    moved = (knots[:, -1] - knots[:, 0]) @ torch.tensor([1.0, -0.5], dtype=torch.float64)
    expected = ((moved[:, None, None] * matrix).matrix_exp() @ start[..., None]).squeeze(2)
    torch.testing.assert_close(end, expected, rtol=1e-6, atol=1e-6)


def test_a_hermite_path_has_the_slope_since_the_knot_before():
    knots = torch.tensor([[0.0, 2.0, 0.0, 1.0]], dtype=torch.float64)[..., None].requires_grad_()
    path = HermitePath.through(knots)
    places, slopes = (torch.cat(each)[:, 0] for each in zip(*(path.at(t) for t in torch.arange(4.0)), strict=True))
    torch.testing.assert_close(slopes, torch.tensor([2.0, 2.0, -2.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(places, knots[0, :, 0])
    t = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda knots: HermitePath.through(knots).at(t.detach()), (knots,))
    place, slope = path.at(t)
    torch.testing.assert_close(torch.autograd.grad(place.sum(), t)[0], slope.sum().detach())


@pytest.mark.parametrize("gap", [0.3, 1.0])
def test_a_hermite_path_through_regular_times_is_the_cubic_in_time_for_each_series(gap):
    generator = torch.Generator().manual_seed(0)
    knots = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    knots[1, 3:] = knots[1, 2]
    path = HermitePath.through(knots)
    for t in torch.rand(20, 2, generator=generator, dtype=torch.float64) * torch.tensor([4.0, 2.0]):
        place, slope = path.at(t[:, None])
        for sample, end in enumerate((5, 3)):
            x, y = gap * np.arange(end), knots[sample, :end].numpy()
            slopes = np.diff(y, axis=0) / gap
            cubic = CubicHermiteSpline(x, y, np.concatenate([slopes[:1], slopes]))
            np.testing.assert_allclose(place[sample], cubic(gap * t[sample]), atol=1e-12)
            np.testing.assert_allclose(slope[sample] / gap, cubic(gap * t[sample], 1), atol=1e-12)


def test_a_hermite_path_does_not_change_where_an_observation_is_added_after_it():
    generator = torch.Generator().manual_seed(0)
    knots = torch.randn(1, 5, 2, generator=generator, dtype=torch.float64)
    both = HermitePath.through(knots[:, :4]), HermitePath.through(knots)
    for t in torch.linspace(0, 3, 20, dtype=torch.float64):
        assert all(torch.equal(*pair) for pair in zip(*(path.at(t) for path in both), strict=True))


def places_seen(made, batch):
    """Where the path was at every evaluation of the vector field `(evaluations, n, channels)`."""
    seen = []
    with made.block.vector_field.register_forward_hook(lambda _, given, __: seen.append(given[1].clone())):
        made(batch)
    return torch.stack(seen)


def test_a_hermite_path_stays_near_what_was_seen_after_a_tiny_gap():
    batch = picked(irregular(5, channels=1), [0])
    batch[TIMES] = torch.tensor([[0.0, 1.0, 1.0 + 1e-4, 9.0, 9.0 + 1e-4]], dtype=torch.float64)
    batch[VALUES] = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0], dtype=torch.float64).reshape(1, 5, 1)
    batch[MASK] = torch.ones_like(batch[MASK])
    time, value = places_seen(encoder("cde hermite", channels=1), batch).unbind(-1)
    overshoot = 4 / 27  # of the last step of a channel, at most
    assert -overshoot <= value.min()
    assert value.max() <= 1 + overshoot
    assert time.min() >= 0
    assert time.max() <= 9 + 1e-4 + 8 * overshoot  # the time runs ahead after a long gap


def test_an_observation_is_not_lost_to_the_rounding_of_its_time():
    batch = irregular(3)
    batch[TIMES] = torch.tensor([[5.0, 6.0, 6.0 + 1e-9]], dtype=torch.float64)
    batch[MASK] = torch.ones_like(batch[MASK])
    for control in CONTROLS_BETWEEN:
        for dtype in (torch.float32, torch.float64):
            memory = encoder(f"cde {control}", dtype=dtype)({**batch, VALUES: batch[VALUES].to(dtype)})
            assert not torch.allclose(memory[:, 1], memory[:, 2])


def test_a_rectilinear_memory_between_two_observations_does_not_know_the_second():
    made, batch = encoder("cde rectilinear"), picked(irregular(3), [0])
    batch[MASK] = torch.ones_like(batch[MASK])
    held = {name: tensor.clone() for name, tensor in batch.items()}
    held[VALUES][0, 2] = held[VALUES][0, 1]
    with_second, with_held = (places_seen(made, given).chunk(4)[2] for given in (batch, held))  # of four pieces
    assert torch.equal(with_second, with_held)


def test_a_path_goes_through_time_latest_values_controls_statics_and_counts():
    batch = {
        TIMES: torch.tensor([[1.0, 2, 4, 7], [1, 3, 3, 3]], dtype=torch.float64),
        VALUES: torch.tensor([[[0.0, 5], [0, 0], [6, 0], [0, 8]], [[0, 0], [2, 0], [0, 0], [0, 0]]]),
        MASK: torch.tensor([[[0, 1], [0, 0], [1, 0], [0, 1]], [[0, 0], [1, 0], [0, 0], [0, 0]]]).bool(),
        CONTROLS: torch.tensor([[[10.0], [20], [30], [40]], [[50], [60], [60], [60]]]),
        STATICS: torch.tensor([[-1.0], [-2]]),
    }
    expected = [  # since reading began, two channels, a control and a static, and how often the channels were seen
        [[0.0, 0, 5, 10, -1, 0, 1], [3, 6, 5, 30, -1, 1, 1], [6, 6, 8, 40, -1, 1, 2]],
        [[2, 2, 0, 60, -2, 1, 0]] * 3,
    ]
    knots = points(Reading.of(batch), counts=True)
    assert torch.equal(knots, torch.tensor(expected))
    assert torch.equal(points(Reading.of(batch), counts=False), knots[..., :5])
    assert encoder("cde hermite", counts=True).initial.in_features == 5  # of two channels, and no inputs


@pytest.mark.parametrize(
    ("solver", "keys", "message"),
    [
        (("rk4", {"compile": "step"}), {}, r"solver\.compile must be none or auto for a CDE: every batch has a path"),
        (("rk4", {}), {"width": 0}, r"width must be at least 1, got 0"),
        (("rk4", {}), {"num_hidden_layers": 0}, r"num_hidden_layers must be at least 1, got 0"),
        (("dopri5", {"atol": [1e-3, 1e-3]}), {}, r"one for each of the state's 3 channels, got 2"),
    ],
)
def test_what_a_cde_refuses(solver, keys, message):
    with pytest.raises(ValueError, match=message):
        encoder("cde linear", solver=solver, **keys)


def test_a_path_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"control must be one of hermite, linear, rectilinear, got cubic"):
        encoder("cde cubic")
