import pytest
import torch

from node_cli.models.sequences.encoder import RecurrentEncoder
from node_cli.series import MASK, TARGET, TIMES, VALUES


def batch_of(*lengths: int, channels: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Series of so many times, padded to the longest; some values are missing."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    times = torch.rand(len(lengths), longest, generator=generator, dtype=torch.float64).cumsum(1)
    rows = torch.arange(longest).expand(times.shape)
    last = torch.tensor(lengths)[:, None] - 1
    values = torch.randn(len(lengths), longest, channels, generator=generator)
    mask = (torch.rand(values.shape, generator=generator) > 0.3) & (rows <= last)[..., None]
    return {
        TIMES: times.gather(1, rows.minimum(last)),
        VALUES: values * mask,
        MASK: mask,
        TARGET: torch.zeros_like(mask),
    }


def of_sample(batch: dict[str, torch.Tensor], sample: int, rows: torch.Tensor) -> dict[str, torch.Tensor]:
    return {name: tensor[sample : sample + 1, rows] for name, tensor in batch.items()}


def encoders() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {"recurrent": RecurrentEncoder(num_channels=2, width=3)}


@pytest.mark.parametrize("name", encoders())
@pytest.mark.parametrize("backwards", [False, True])
def test_memory_depends_on_what_was_seen_alone(name: str, backwards: bool) -> None:
    encoder, batch = encoders()[name], batch_of(7, 4, 6)
    memory = encoder(batch, backwards=backwards)
    assert memory.shape == (3, 7, encoder.width)
    is_seen = batch[MASK].any(2)
    for sample in range(3):
        rows = is_seen[sample].nonzero()[:, 0]
        first, last = int(rows[0]), int(batch[TIMES][sample].argmax())  # where reading begins is an input
        kept = torch.unique(torch.cat([rows, torch.tensor([0, last])]))
        alone = encoder(of_sample(batch, sample, kept), backwards=backwards)
        torch.testing.assert_close(memory[sample, -1], alone[0, -1], msg=f"sample {sample} from {first}")


@pytest.mark.parametrize("name", encoders())
def test_memory_stays_where_nothing_is_seen(name: str) -> None:
    encoder, batch = encoders()[name], batch_of(5, 3)
    batch[MASK][0, 2] = False
    batch[VALUES][0, 2] = 100.0
    memory = encoder(batch)
    assert torch.equal(memory[0, 2], memory[0, 1])
    assert torch.equal(memory[1, 2], memory[1, 4])
    nothing = {**batch, MASK: torch.zeros_like(batch[MASK])}
    assert encoder(nothing).isfinite().all()


def test_recurrent_encoder_is_a_gru_cell_from_time_to_time() -> None:
    torch.manual_seed(0)
    encoder, batch = RecurrentEncoder(num_channels=2, width=3), batch_of(4)
    batch[MASK][:] = True
    batch[MASK][0, 1] = False
    cell = torch.nn.GRUCell(5, 3)
    cell.load_state_dict({name.removesuffix("_l0"): tensor for name, tensor in encoder.network.state_dict().items()})
    state, read, rows = torch.zeros(1, 3), batch[TIMES][0, 0], []
    for i in range(4):
        if i != 1:
            gap = (batch[TIMES][0, i] - read).float().view(1, 1)
            state = cell(torch.cat([batch[VALUES][:, i], torch.ones(1, 2), gap], dim=1), state)
            read = batch[TIMES][0, i]
        rows.append(state)
    torch.testing.assert_close(encoder(batch), torch.stack(rows, dim=1))


def test_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width must be at least 1, got 0"):
        RecurrentEncoder(num_channels=1, width=0)
