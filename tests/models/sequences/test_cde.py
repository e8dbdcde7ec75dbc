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
    times = torch.tensor([[0.0, 1.0, 3.0, 3.5]], dtype=torch.float64)
    knots = torch.tensor([[0.0, 2.0, 0.0, 1.0]], dtype=torch.float64)[..., None].requires_grad_()
    path = HermitePath.through(times, knots)
    slopes = torch.stack([path.at(t)[1][0, 0] for t in times[0]])
    torch.testing.assert_close(slopes, torch.tensor([2.0, 2.0, -1.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(torch.stack([path.at(t)[0][0, 0] for t in times[0]]), knots[0, :, 0])
    assert torch.autograd.gradcheck(lambda knots: HermitePath.through(times, knots).at(times[0, 1] + 0.7), (knots,))
    t = torch.tensor(2.2, dtype=torch.float64, requires_grad=True)
    place, slope = path.at(t)
    torch.testing.assert_close(torch.autograd.grad(place.sum(), t)[0], slope.sum().detach())


def test_a_hermite_path_is_a_cubic_for_each_series_which_stays_at_its_end():
    generator = torch.Generator().manual_seed(0)
    times = torch.tensor([[0.0, 0.3, 1.0, 1.2, 2.0], [0.0, 0.5, 1.5, 1.5, 1.5]], dtype=torch.float64)
    knots = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    knots[1, 3:] = knots[1, 2]
    path = HermitePath.through(times, knots)
    for t in torch.rand(20, 2, generator=generator, dtype=torch.float64) * times[:, -1]:
        place, slope = path.at(t[:, None])
        for sample, end in enumerate((5, 3)):
            x, y = times[sample, :end].numpy(), knots[sample, :end].numpy()
            slopes = np.diff(y, axis=0) / np.diff(x)[:, None]
            cubic = CubicHermiteSpline(x, y, np.concatenate([slopes[:1], slopes]))
            np.testing.assert_allclose(place[sample], cubic(t[sample]), atol=1e-12)
            np.testing.assert_allclose(slope[sample], cubic(t[sample], 1), atol=1e-12)


def test_a_hermite_path_does_not_change_where_an_observation_is_added_after_it():
    generator = torch.Generator().manual_seed(0)
    times = torch.tensor([[0.0, 0.3, 1.0, 1.2, 2.0]], dtype=torch.float64)
    knots = torch.randn(1, 5, 2, generator=generator, dtype=torch.float64)
    both = HermitePath.through(times[:, :4], knots[:, :4]), HermitePath.through(times, knots)
    for t in torch.linspace(0, 1.2, 20, dtype=torch.float64):
        assert all(torch.equal(*pair) for pair in zip(*(path.at(t) for path in both), strict=True))


def test_an_observation_is_not_lost_to_the_rounding_of_its_time():
    batch = irregular(3)
    batch[TIMES], batch[MASK] = (
        torch.tensor([[5.0, 6.0, 6.0 + 1e-9]], dtype=torch.float64),
        torch.ones_like(batch[MASK]),
    )
    rounded = {**batch, VALUES: batch[VALUES].float()}
    for control in ("linear", "hermite"):
        memory = encoder(f"cde {control}")(batch)
        assert not torch.allclose(memory[:, 1], memory[:, 2])
    memory = encoder("cde linear", dtype=torch.float32)(rounded)
    assert not torch.allclose(memory[:, 1], memory[:, 2])
    with pytest.raises(ValueError, match=r"two times of a series are the same in float32, in which its Hermite path"):
        encoder("cde hermite", dtype=torch.float32)(rounded)


def test_a_rectilinear_memory_between_two_observations_does_not_know_the_second():
    made, batch = encoder("cde rectilinear"), picked(irregular(3), [0])
    batch[MASK] = torch.ones_like(batch[MASK])
    held = {name: tensor.clone() for name, tensor in batch.items()}
    held[VALUES][0, 2] = held[VALUES][0, 1]
    driven = []
    made.block.vector_field.register_forward_hook(lambda _, given, __: driven.append(given[1].clone()))
    made(batch)
    number = len(driven) // 4  # evaluations of a piece
    with_second, driven[:] = driven[2 * number : 3 * number], []
    made(held)
    assert all(map(torch.equal, with_second, driven[2 * number : 3 * number]))


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
