"""What every encoder promises, and the recurrent one."""

import pytest
import torch
from encoders import ENCODERS, encoder, irregular, picked

from node_cli.models.sequences.encoder import RecurrentEncoder
from node_cli.models.sequences.gru_d import GruDEncoder
from node_cli.series import MASK, TIMES, VALUES

BATCH = irregular(7, 4, 6, 1, 3)  # of the fourth one thing is seen, of the last one nothing
BATCH[MASK][3, 0], BATCH[VALUES][3, 0], BATCH[MASK][4] = True, 0.7, False


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_a_memory_is_made_of_what_was_seen_of_its_own_series(name, backwards):
    memory = encoder(name)(BATCH, backwards=backwards)
    assert memory.shape == (5, 7, 3)
    assert not memory[4].any()
    for sample in range(5):
        seen = BATCH[MASK][sample].any(1).nonzero()[:, 0]
        last = BATCH[TIMES][sample].argmax()
        kept = torch.unique(torch.cat([seen, torch.tensor([0, last])]))  # reading begins at one end or the other
        alone = encoder(name)(picked(BATCH, [sample], kept), backwards=backwards)
        torch.testing.assert_close(memory[sample, -1], alone[0, -1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_memory_stays_where_nothing_is_seen(name):
    batch = {name: tensor.clone() for name, tensor in BATCH.items()}
    batch[MASK][0, 2] = False
    batch[VALUES][0, 2] = torch.nan
    memory = encoder(name)(batch)
    assert torch.equal(memory[0, 2], memory[0, 1])
    assert torch.equal(memory[1, 3:], memory[1, 3:4].expand(4, -1))
    assert torch.equal(encoder(name)({**batch, MASK: torch.zeros_like(batch[MASK])}), torch.zeros_like(memory))


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_observed_later_changes_no_memory_before(name):
    batch = {name: tensor.clone() for name, tensor in BATCH.items()}
    before = encoder(name)(batch)
    batch[MASK][0, 4:] = True
    batch[VALUES][0, 4:] += 10.0
    after = encoder(name)(batch)
    torch.testing.assert_close(after[0, :4], before[0, :4], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[0, 4], before[0, 4])


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
@pytest.mark.parametrize("name", ENCODERS)
def test_gradients_are_those_of_finite_differences(name, gradient):
    made = encoder(name, solver=("rk4", {"num_steps": 1 if gradient != "adjoint" else 30}), gradient=gradient)
    batch, weights = picked(BATCH, [0, 1, 3, 4], slice(4)), list(made.parameters())
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(weight.shape, generator=generator, dtype=weight.dtype) for weight in weights]

    def end(step):
        with torch.no_grad():
            for weight, each in zip(weights, direction, strict=True):
                weight += step * each
        return made(batch)[:, -1].square().sum()

    slopes = torch.autograd.grad(end(0.0), weights)
    along = sum((slope * each).sum() for slope, each in zip(slopes, direction, strict=True))
    with torch.no_grad():
        difference = (end(1e-5) - end(-2e-5)) / 2e-5
    torch.testing.assert_close(along, difference, rtol=1e-5, atol=1e-7)


def test_the_recurrent_encoder_is_a_gru_cell_from_time_to_time():
    made, batch = encoder("recurrent"), picked(BATCH, [0], slice(4))
    batch[MASK] = torch.ones_like(batch[MASK])
    batch[MASK][0, 1] = False
    cell = torch.nn.GRUCell(5, 3, dtype=torch.float64)
    cell.load_state_dict({name.removesuffix("_l0"): tensor for name, tensor in made.network.state_dict().items()})
    state, read, rows = torch.zeros(1, 3, dtype=torch.float64), batch[TIMES][0, 0], []
    for i in range(4):
        if i != 1:
            gap = (batch[TIMES][0, i] - read).view(1, 1)
            state = cell(torch.cat([batch[VALUES][:, i], torch.ones(1, 2), gap], dim=1), state)
            read = batch[TIMES][0, i]
        rows.append(state)
    torch.testing.assert_close(made(batch), torch.stack(rows, dim=1))


def test_a_gru_d_lets_what_it_saw_decay_with_the_time_since():
    made = GruDEncoder(num_channels=2, width=2).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.value_rate.fill_(2.0)
        made.cell.weight_ih[4:, 0] = 1.0  # the candidate is tanh of the first value, and half of it is taken up
    batch = {
        TIMES: torch.tensor([[0.0, 0.5, 1.5]], dtype=torch.float64),
        VALUES: torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]], dtype=torch.float64),
        MASK: torch.tensor([[[True, False], [False, True], [False, True]]]),
    }
    candidates = torch.tensor([0.0, -1.0, -3.0], dtype=torch.float64).exp()
    expected, state = [], torch.zeros((), dtype=torch.float64)
    for candidate in candidates.tanh():
        state = (state + candidate) / 2
        expected.append(state)
    torch.testing.assert_close(made(batch)[0, :, 0], torch.stack(expected))


@pytest.mark.parametrize("kind", [RecurrentEncoder, GruDEncoder])
def test_a_width_of_nothing_is_refused(kind):
    with pytest.raises(ValueError, match=r"width must be at least 1, got 0"):
        kind(num_channels=1, width=0)
