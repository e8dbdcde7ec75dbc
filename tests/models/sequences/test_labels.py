"""What is read from the memory of an encoder."""

import pytest
import torch
from encoders import irregular

from node_cli.models.sequences.encoder import Encoder
from node_cli.models.sequences.labels import Readout
from node_cli.series import MASK, VALUES


class Sums(Encoder):
    """Remembers the sum of all values up to a time."""

    width = 2

    def forward(self, batch, *, backwards=False):
        return batch[VALUES].cumsum(1)


def readout(**keys):
    torch.manual_seed(0)
    return Readout(Sums(), num_outputs=3, **{"readout": "last", "noise": 0.0, "dropout": 0.0, **keys}).double()


def test_the_last_memory_is_the_one_after_all_observations():
    batch, made = irregular(6, 3), readout()
    torch.testing.assert_close(made(batch), made.head(batch[VALUES].sum(1)))


def test_the_mean_is_over_times_with_an_observation():
    batch, made = irregular(6, 3), readout(readout="mean")
    is_seen = batch[MASK].any(2)
    means = [memory[seen].mean(0) for memory, seen in zip(batch[VALUES].cumsum(1), is_seen, strict=True)]
    assert not is_seen.all()
    torch.testing.assert_close(made(batch), made.head(torch.stack(means)))


@pytest.mark.parametrize("keys", [{"noise": 1.0}, {"dropout": 0.5}])
def test_noise_and_dropout_are_of_training_alone(keys):
    batch, made = irregular(6, 3), readout(**keys)
    assert not torch.equal(made(batch), made(batch))
    made.eval()
    assert torch.equal(made(batch), made(batch))
    torch.testing.assert_close(made(batch), made.head(batch[VALUES].sum(1)))
