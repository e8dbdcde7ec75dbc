"""Where trajectories start."""

import pytest
import torch
from series_data import batch_of
from series_models import series_model

from node_cli.datasets.series.assembling import assemble
from node_cli.datasets.series.keys import SeriesKeys
from node_cli.datasets.series.raw import RawSeries, Series
from node_cli.series import MASK, SEGMENT, START, TARGET, TIMES, VALUES, visible


def first_values(start, batch, training=True, **data):
    model = series_model("neural_ode", data=data, start=start, encoder_width=3, width=4).train(training)
    return model, model(batch)


def test_the_first_observation_of_each_channel_wherever_it_is():
    batch = batch_of()
    batch[MASK][0, :3, 1] = torch.tensor([False, False, True])
    batch[MASK][1, :, 0] = False
    _, values = first_values("first", batch)
    assert values[0, 0].tolist() == [batch[VALUES][0, 0, 0].item(), batch[VALUES][0, 2, 1].item()]
    assert values[1, 0, 0] == 0  # nothing was seen of it


def test_offsets_are_learned_for_each_start_and_segment():
    batch = {**batch_of(num := 3), START: torch.tensor([2, 0, 2]), SEGMENT: torch.tensor([0, 1, 1])}
    model, values = first_values("learned", batch, num_starts=num, num_segments=2)
    assert torch.equal(values[:, 0], batch[VALUES][:, 0])
    with torch.no_grad():
        model.start.offsets.copy_(torch.arange(12.0).view(3, 2, 2))
    moved = model(batch)[:, 0] - batch[VALUES][:, 0]
    torch.testing.assert_close(moved, torch.tensor([[8.0, 9], [2, 3], [10, 11]], dtype=torch.float64))


def test_each_window_learns_where_it_starts():
    noisy = torch.tensor([0.5, 1, 2, 2.75, 4, 5], dtype=torch.float64)[:, None]  # of 0, 1, ..., 5
    raw = RawSeries((Series("", torch.arange(6.0, dtype=torch.float64), noisy),), ("x",))
    no_splits = {"split": "time", "val": 0, "test": 0, "split_seed": 0}
    keys = SeriesKeys(**no_splits, window=3, stride=3, context=1, log=False, normalize=False, time_scale=1.0, drop=0.0)
    dataset = assemble(raw, keys)
    batch = dataset.splits["train"]
    data = {"num_channels": 1, "num_starts": dataset.offers["num_starts"], "units": dataset.offers["units"]}
    line = {"equations": "linear", "fixed": {"a_1_1": 0.0}, "parameters": {"b_1": 0.7}}
    model = series_model("known", data=data, dtype=torch.float32, start="learned", **line)
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = ((model(visible(batch)) - batch[VALUES]) * batch[TARGET]).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    assert model.start.offsets.flatten().tolist() == pytest.approx([-0.5, 0.25], abs=1e-4)
    assert model.named_values()["b_1"].item() == pytest.approx(1, abs=1e-4)


def test_a_series_that_is_not_of_the_training_data_has_no_offset():
    batch = {**batch_of(), START: torch.tensor([-1, 0, 1])}
    model, values = first_values("learned", batch, training=False)
    with torch.no_grad():
        model.start.offsets += 1
    assert torch.equal(model(batch)[0], values[0])
    with pytest.raises(ValueError, match=r"^model\.start must not be learned for samples that are no whole ones"):
        model.train()(batch)


def test_an_encoder_reads_what_was_seen_and_nothing_else():
    batch = batch_of()
    model, values = first_values("encoder", batch)
    longer = {name: torch.cat([t, t[:, -1:]], dim=1) if t.dim() > 1 else t for name, t in batch.items()}
    longer[MASK][:, -1] = False
    torch.testing.assert_close(model(longer)[:, :-1], values)
    later = {**batch, VALUES: batch[VALUES] + 0.1 * batch[MASK] * (batch[TIMES] > batch[TIMES][:, :1])[..., None]}
    assert not torch.allclose(model(later)[:, 0], values[:, 0])


def test_from_the_last_observation_on_and_before_it_what_was_seen():
    batch = batch_of(T=5, n=2, own_times=True)
    batch[MASK][:] = torch.tensor([True, True, False, False, False])[None, :, None]
    batch[MASK][0, 2] = torch.tensor([False, True])
    model, values = first_values("last", batch)
    seen = batch[VALUES]
    assert torch.equal(values[:, :2], seen[:, :2])
    assert values[0, 2].tolist() == [seen[0, 1, 0].item(), seen[0, 2, 1].item()]  # what was seen of each channel last
    from_there = {name: t[1:, 1:] if t.dim() > 1 else t[1:] for name, t in batch.items()}
    torch.testing.assert_close(values[1, 1:], series_like(model)(from_there)[0])


def series_like(model):
    """The same field from the first observation."""
    other = series_model("neural_ode", width=4)
    other.block.load_state_dict(model.block.state_dict())
    return other
