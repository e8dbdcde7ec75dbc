"""Baselines that are no ODEs."""

import torch
from series_data import batch_of
from series_models import series_model

from node_cli.series import MASK, TIMES, VALUES


def test_a_linear_autoregression_starts_at_persistence_and_can_be_constant_velocity():
    model, batch = series_model("linear_ar"), batch_of()
    batch[MASK][:] = torch.tensor([True] * 3 + [False] * 3)[None, :, None]
    values, times = batch[VALUES], batch[TIMES]
    assert torch.equal(model(batch)[:, 1:4], values[:, :3])
    assert torch.equal(model(batch)[:, 4:], values[:, 2:3].expand(-1, 2, -1))
    with torch.no_grad():
        model.map.weight[:, 2:] = torch.eye(2)
    slope = (values[:, 2] - values[:, 1]) / (times[:, 2] - times[:, 1])[:, None]
    line = values[:, 2:3] + slope[:, None] * (times[:, 3:] - times[:, 2:3])[..., None]
    torch.testing.assert_close(model(batch)[:, 3:], line)


def test_a_gru_goes_on_from_its_own_predictions():
    model, batch = series_model("gru", width=4), batch_of()
    values = model(batch)
    filled = {**batch, VALUES: torch.where(batch[MASK], batch[VALUES], values.detach())}
    assert not model.is_continuous
    torch.testing.assert_close(model(filled), values)
    steps = model.one_step(batch)
    assert torch.equal(steps[:, 1:], values[:, 1:])
