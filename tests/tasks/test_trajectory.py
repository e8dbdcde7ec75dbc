import math

import numpy as np
import pytest
import torch
from lines import KEYS, UNITS, Line, lines

from node_cli.batch import take
from node_cli.ode.errors import ArgumentError
from node_cli.ode.solution import SolveError, Status
from node_cli.series import CONTROLS, DROPPED, MASK, TARGET, TIMES, TRUTH, VALUES, Units
from node_cli.tasks.trajectory import Trajectory


def task(**keys) -> Trajectory:
    units = keys.pop("units", UNITS)
    return Trajectory(units, ("hare", "lynx"), "year", "", **{"channel_units": ("thousands",) * 2, **KEYS, **keys})


def rows_of(one: Trajectory, model: Line, batch):
    return one.predict(model, batch, torch.Generator())


def mean_loss(one: Trajectory, model: Line, batch, progress: float = 0.0) -> float:
    loss = one.loss(model, batch, progress)
    return (loss.total / loss.weight).item()


def test_the_loss_is_that_of_the_targets_alone_and_adds_up():
    batch, model = lines((1.0, 0.0), num_seen=6), Line([0.0, 0.0])
    whole = task().loss(model, batch, 0.0)
    assert whole.weight == 8
    assert whole.total.item() == pytest.approx(2 * (36 + 49))
    parts = [task().loss(model, take(batch, slice(i, i + 1)), 0.0) for i in range(2)]
    assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item())


def test_a_model_never_sees_what_is_hidden():
    batch = lines((1.0, 2.0), num_seen=6)
    poisoned = {**batch, VALUES: torch.where(batch[MASK], batch[VALUES], torch.nan)}
    prediction = rows_of(task(), Line([1.0, 2.0]), poisoned)["prediction"]
    torch.testing.assert_close(prediction, UNITS.values(batch[VALUES]))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("mse", (36 + 49) / 4), ("mae", 13 / 4), ("huber", (5.5 + 6.5) / 4)],
)
def test_the_size_of_an_error(loss, expected):
    assert mean_loss(task(loss=loss), Line([0.0, 0.0]), lines((1.0, 0.0), num_seen=6)) == pytest.approx(expected)


def test_channels_have_weights():
    batch = lines((1.0, 0.5), num_seen=7)
    assert mean_loss(task(channel_weights=[1.0, 3.0]), Line([0.0, 0.0]), batch) == pytest.approx((49 + 3 * 12.25) / 4)


def test_log_mse_is_that_of_the_values_in_the_users_units():
    batch = lines((0.0, 0.0), num_seen=7)
    prediction = batch[VALUES][:, :1].expand_as(batch[VALUES]) + torch.tensor([1.0, 0.0])
    expected = ((UNITS.values(prediction).log() - UNITS.values(batch[VALUES]).log())[batch[TARGET]]).square().mean()
    model = Line([1 / 7, 0.0])
    assert mean_loss(task(loss="log_mse"), model, batch) == pytest.approx(expected.item(), rel=1e-5)
    low = {**batch, VALUES: batch[VALUES] - 10}
    with pytest.raises(ArgumentError, match=r"task.loss=log_mse needs values above 0, got -24: take another loss"):
        task(loss="log_mse").loss(model, low, 0.0)


def test_growing_counts_more_times_as_the_run_goes_on():
    batch = {**lines((1.0, 1.0), num_seen=8), TARGET: lines((1.0, 1.0), num_seen=0)[TARGET]}
    grown = task(strategy="growing")
    weights = [grown.loss(Line([0.0, 0.0]), batch, progress).weight.item() for progress in (0.0, 0.25, 0.5, 0.9)]
    assert weights == [4 * times for times in (2, 5, 8, 8)]


def test_growing_begins_where_something_is_forecast():
    grown, batch = task(strategy="growing"), lines((1.0, 1.0), num_seen=5)
    weights = [grown.loss(Line([0.0, 0.0]), batch, progress).weight.item() for progress in (0.0, 0.5)]
    assert weights == [4 * times for times in (1, 3)]


def test_windows_forget_where_the_series_started():
    batch = lines((1.0, 1.0), num_seen=8)
    assert mean_loss(task(strategy="windows", window=3), Line([0.0, 0.0]), batch) == pytest.approx(16 / 7)


def test_shooting_adds_how_far_segments_miss_each_other():
    batch = {**lines((1.0, 1.0), num_seen=8), TARGET: lines((1.0, 1.0), num_seen=0)[TARGET]}
    exact = task(strategy="multiple_shooting")
    assert exact.offers == {"num_segments": 2}
    assert mean_loss(exact, Line([1.0, 1.0]), batch) == pytest.approx(0, abs=1e-10)
    loss = exact.loss(Line([0.0, 0.0]), batch, 0.0)
    gap = 4.0**2  # a segment is 4 long, and the next one starts from the data
    assert loss.metrics["gap"] / loss.weight == pytest.approx(gap)
    without = task(strategy="multiple_shooting", continuity=1e-12).loss(Line([0.0, 0.0]), batch, 0.0)
    assert ((loss.total - without.total) / loss.weight).item() == pytest.approx(gap)


def test_slopes_are_matched_while_the_run_is_young():
    batch, model = lines((1.0, 2.0), num_seen=8), Line([0.5, 2.0])
    matching = task(match_until=0.5)
    assert mean_loss(matching, model, batch, 0.4) == pytest.approx(0.25 / 2, rel=1e-4)
    assert matching.loss(model, {**batch, TARGET: batch[MASK]}, 0.5).total != 0


def test_slopes_are_those_of_the_batch_at_hand():
    model, matching = Line([0.0, 0.0]), task(match_until=1.0)
    for slope in (1.0, 3.0, 1.0):
        batch = lines((slope, slope), num_seen=8)
        assert mean_loss(matching, model, batch) == pytest.approx(slope**2, rel=1e-4)


def test_a_penalty_is_added_to_the_mean():
    model, batch = Line([0.5, 2.0]), lines((0.5, 2.0), num_seen=6)
    assert mean_loss(task(), model, batch) == pytest.approx(0, abs=1e-10)
    model.weight_of_penalty = 0.1
    assert mean_loss(task(), model, batch) == pytest.approx(0.1 * 4.25)


def test_a_model_is_pruned_in_training_alone():
    model, batch = Line([0.5, 2.0]), lines((0.5, 2.0), num_seen=6)
    task().loss(model, batch, 0.25)
    task().loss(model.eval(), batch, 0.5)
    assert model.pruned == [0.25]


def test_metrics_are_in_the_users_units_beside_forecasts_that_need_no_training():
    batch = lines((1.0, 0.0), num_seen=6)
    one, model = task(season=2), Line([0.0, 0.0])
    metrics = one.metrics(batch, rows_of(one, model, batch))
    assert set(metrics) == set(one.metric_names)
    hare = 2.0  # std
    assert metrics["rmse"] == pytest.approx(math.sqrt((hare**2 * (36 + 49)) / 4))
    assert metrics["mae"] == pytest.approx(hare * 13 / 4)
    assert metrics["persistence_rmse"] == pytest.approx(math.sqrt(hare**2 * (1 + 4) / 4))
    assert metrics["one_step_rmse"] == pytest.approx(math.sqrt(hare**2 * (1 + 1) / 4))
    assert metrics["season_rmse"] == pytest.approx(math.sqrt(hare**2 * (4 + 4) / 4))


@pytest.mark.parametrize("channel_units", [(), ("degree", "knot")])
def test_channels_of_several_units_are_not_mixed(channel_units):
    batch, one, model = lines((1.0, 0.0), num_seen=6), task(channel_units=channel_units), Line([0.0, 0.0])
    rows = rows_of(one, model, batch)
    metrics, details = one.metrics(batch, rows), one.details(model, batch, rows)
    assert set(metrics) == set(one.metric_names)
    assert metrics["scaled_rmse"] == pytest.approx(math.sqrt((36 + 49) / 4))
    assert metrics["persistence_scaled_rmse"] == pytest.approx(math.sqrt((1 + 4) / 4))
    assert "rmse" not in metrics
    assert details["by_channel"]["hare"]["rmse"] == pytest.approx(2 * math.sqrt((36 + 49) / 2))
    unit = " degree" if channel_units else ""
    assert one.shown(details)["test rmse of hare"] == f"13.04{unit} (persistence 3.162{unit})"


def test_one_step_sees_what_was_observed_before_each_time():
    batch, one, model = lines((1.0, 0.0), num_seen=6), task(), Line([1.0, 0.0])
    batch[VALUES] = batch[VALUES].clone()
    batch[VALUES][:, 6, 0] += 1  # off by one there, and by one the other way after it
    metrics = one.metrics(batch, rows_of(one, model, batch))
    assert metrics["one_step_rmse"] == pytest.approx(math.sqrt(2**2 * (1 + 1) / 4))
    batch[VALUES][:, 7, 0] += 1
    metrics = one.metrics(batch, rows_of(one, model, batch))
    assert metrics["one_step_rmse"] == pytest.approx(math.sqrt(2**2 * (1 + 0) / 4))


def test_a_prediction_that_is_no_number_is_not_left_out():
    batch, one, model = lines((1.0, 0.0), num_seen=6), task(), Line([1.0, 0.0])
    rows = rows_of(one, model, batch)
    spoiled = {name: rows[name].clone() for name in rows}
    for name in ("prediction", "scaled", "one_step"):
        spoiled[name][0, 6, 0] = math.nan
    metrics = one.metrics(batch, spoiled)
    for name, value in metrics.items():
        assert math.isnan(value) == (name != "persistence_rmse"), name
    details = one.details(model, batch, spoiled)
    assert math.isnan(details["by_channel"]["hare"]["rmse"])
    assert math.isnan(details["by_horizon"]["metrics"]["hare/rmse"][0])


def test_metrics_of_logarithms_where_logarithms_are_learned():
    units = Units((1.0, 1.0), (0.5, 0.5), True, 0.0, 1.0)
    one, batch = task(units=units), lines((1.0, 0.0), num_seen=6)
    metrics = one.metrics(batch, rows_of(one, Line([0.5, 0.0]), batch))
    assert metrics["log_rmse"] == pytest.approx(0.5 * math.sqrt((9 + 12.25) / 4), rel=1e-5)
    assert metrics["persistence_log_rmse"] == pytest.approx(0.5 * math.sqrt((1 + 4) / 4), rel=1e-5)


def test_logarithms_of_the_smallest_values_are_exact():
    tiny = Units((-25.0, -25.0), (0.5, 0.5), True, 0.0, 1.0)  # about 1e-11
    one, batch = task(units=tiny, loss="log_mse"), lines((1.0, 0.0), num_seen=6)
    model = Line([0.5, 0.0])
    assert one.metrics(batch, rows_of(one, model, batch))["log_rmse"] == pytest.approx(0.5 * math.sqrt(21.25 / 4), 1e-4)
    assert mean_loss(one, model, batch) == pytest.approx(0.25 * 21.25 / 4, 1e-4)


def intervals(one: Trajectory, model: Line, batch) -> list[float]:
    found = one.fit_details(model, {"train": {**batch, TARGET: batch[MASK]}})["parameters"]
    return [value["std"] for value in found.values()]


@pytest.mark.parametrize(("loss", "scale"), [("mse", (1.0, 1.0)), ("log_mse", (0.5, 2.0))])
def test_intervals_are_of_the_errors_that_the_loss_takes(loss, scale):
    units = Units((1.0, 2.0), (0.5, 2.0), True, 0.0, 1.0)
    batch, model = lines((1.0, 0.5), num_seen=6), Line([0.9, 0.4])
    weights = torch.tensor([1.0, 4.0])
    times, size = batch[TIMES][:, :6, None], torch.tensor(scale) * weights.sqrt()
    errors = size * (torch.tensor([0.9, 0.4]) - torch.tensor([1.0, 0.5])) * times
    expected = (errors.square().sum() / (24 - 2) / (size * times).square().sum((0, 1))).sqrt()
    found = intervals(task(units=units, loss=loss, channel_weights=weights.tolist()), model, batch)
    assert found == pytest.approx(expected.tolist(), rel=1e-4)


class Unsolved(Line):
    def forward(self, batch):
        raise SolveError(Status.NON_FINITE, 0.5, 7)


def test_parameters_without_a_solve_of_train_have_no_interval():
    found = task().fit_details(Unsolved([0.9, 0.4]), {"train": lines((1.0, 0.5), num_seen=6)})
    assert found["parameters"]["slope_0"] == {"value": pytest.approx(0.9)}
    assert found["fit"]["failed"].startswith("the ODE solve failed at t = 0.5 after 7 evaluations")


def test_intervals_of_windows_are_those_of_what_the_loss_sees():
    batch, model = lines((1.0, 0.5), num_seen=8), Line([0.9, 0.4])
    whole, pieces = (intervals(task(strategy=strategy), model, batch) for strategy in ("full", "windows"))
    assert pieces[0] > 1.05 * whole[0]


@pytest.mark.parametrize(("slope", "is_stuck"), [(0.0, True), (0.9, False)])
def test_a_fit_that_is_hardly_better_than_the_mean_is_named(slope, is_stuck):
    batch, one = lines((1.0, 1.0), num_seen=8), task()
    details = one.fit_details(Line([slope, slope]), {"train": {**batch, TARGET: batch[MASK]}})
    advice = "hardly better than the mean of the training data: train on pieces, with task.strategy=windows"
    assert one.shown(details).get("fit") == (advice if is_stuck else None)


@pytest.mark.parametrize(
    ("starts_anew", "num_seen", "window", "chosen", "why"),
    [
        (True, 8, 5, "windows", "the longest series of train has 8 times, more than 1.5 windows of 5"),
        (True, 8, 6, "full", "the longest series of train has 8 times, at most 1.5 windows of 6"),
        (True, 2, 3, "full", "dataset.window has cut the series"),
        (False, 8, 3, "full", "Line does not start from the first observation of a window"),
    ],
)
def test_auto_takes_windows_of_long_series(starts_anew, num_seen, window, chosen, why):
    batch, model, one = lines((1.0, 0.0), num_seen), Line([0.0, 0.0]), task(strategy="auto", window=window)
    model.learns_from_windows = starts_anew
    batch |= {TARGET: batch[MASK]} if num_seen == 8 else {}
    one.choose(model, batch)
    assert one.chosen() == {"task.strategy": (chosen, why)}
    explicit = task(strategy=chosen, window=window)
    assert mean_loss(one, model, batch) == mean_loss(explicit, model, batch)
    unused = one.unused(model)
    assert "task.window" not in unused  # auto goes by it
    assert unused["task.grow_from"] == f"with task.strategy={chosen}: set task.strategy=growing"
    assert explicit.chosen() == {}


def test_tracks_are_measured_in_kilometres():
    batch = lines((1.0, 0.0), num_seen=6)
    one = Trajectory(Units((0.0, 0.0), (1.0, 1.0), False, 0.0, 1.0), ("lat", "lon"), position_channels=(0, 1), **KEYS)
    metrics = one.metrics(batch, rows_of(one, Line([0.0, 0.0]), batch))
    degree = 6371 * math.pi / 180
    assert metrics["track_km"] == pytest.approx(6.5 * degree)
    assert metrics["persistence_track_km"] == pytest.approx(1.5 * degree)
    assert metrics["velocity_track_km"] == pytest.approx(0, abs=1e-3)
    model = Line([0.0, 0.0])
    last = one.details(model, batch, rows_of(one, model, batch))["at_the_last_time"]["track"]
    assert last["track_km"] == pytest.approx(7 * degree)
    assert last["persistence_track_km"] == pytest.approx(2 * degree)


def test_details_name_channels_horizons_and_parameters():
    batch, one, model = lines((1.0, 0.0), num_seen=6), task(), Line([1.0, 0.0])
    details = one.details(model, batch, rows_of(one, model, batch))
    ahead = details["by_horizon"]
    assert (ahead["steps"], ahead["time"]) == ([1, 2], [5, 10])
    assert ahead["metrics"]["hare/persistence_rmse"] == pytest.approx([2, 4])
    assert ahead["metrics"]["persistence_rmse"] == pytest.approx([2 / math.sqrt(2), 4 / math.sqrt(2)])
    assert details["by_channel"]["hare"]["persistence_mae"] == pytest.approx(3)
    assert details["at_the_last_time"]["hare"]["persistence_mae"] == pytest.approx(4)
    assert one.fit_details(model, {"train": batch})["parameters"]["slope_0"]["value"] == 1


def test_what_was_shown_has_no_error_by_horizon():
    batch, one, model = lines((1.0, 0.0), num_seen=8), task(), Line([1.0, 0.0])
    batch |= {TARGET: batch[MASK]}
    rows = rows_of(one, model, batch)
    assert "by_horizon" not in one.details(model, batch, rows)
    with torch.no_grad():
        assert set(one.figures(model, batch, rows)) == {"series", "phase_portrait"}


def test_the_table_has_a_row_for_each_series_and_time_without_padding():
    batch = lines((1.0, 0.0), num_seen=6)
    batch[TIMES] = batch[TIMES].clone()
    batch[TIMES][1, 4:] = batch[TIMES][1, 4]
    one = task()
    table = one.table(batch, rows_of(one, Line([1.0, 0.0]), batch), ["north", "south"])
    assert list(table) == ["series", "year", "hare", "hare_observed", "lynx", "lynx_observed", "is_shown"]
    assert table["series"].tolist() == ["north"] * 8 + ["south"] * 5
    assert table["year"][:3].tolist() == ["1900", "1905", "1910"]
    np.testing.assert_allclose(table["hare"][:8], table["hare_observed"][:8], rtol=1e-6)
    assert table["is_shown"].tolist() == [True] * 6 + [False] * 2 + [True] * 5


@pytest.mark.parametrize(("is_log", "is_stored"), [(False, False), (True, False), (False, True)])
def test_the_table_has_times_and_observations_as_they_were_written(is_log, is_stored):
    written = torch.tensor(
        [[30.1, 4], [47.2, 6.1], [12.3, 9.7], [1234567, 1013.25], [77.4, 0.0005]], dtype=torch.float64
    )
    seen = written.log() if is_log else written
    units = Units(tuple(seen.mean(0).tolist()), tuple(seen.std(0).tolist()), is_log, 0.1, 3.0)
    batch = {name: tensor[:1, :5] if tensor.dim() > 1 else tensor[:1] for name, tensor in lines((0.0, 0.0), 5).items()}
    times = torch.tensor([[0.1, 0.3, 5.5, 1900, 2e15]], dtype=torch.float64)
    stored = written.float().double()  # as a file of arrays may have them
    batch |= {TIMES: units.scaled_times(times), VALUES: units.scaled(stored if is_stored else written).float()[None]}
    one = task(units=units)
    table = one.table(batch, {"prediction": units.values(batch[VALUES])}, [""])
    assert table["year"].tolist() == ["0.1", "0.3", "5.5", "1900", "2000000000000000"]
    observed = np.stack([table["hare_observed"], table["lynx_observed"]], axis=1)
    assert observed.astype(str).tolist() == written.numpy().astype(str).tolist()


def test_a_forecast_goes_on_to_a_time_and_sees_all_data():
    batch, one = lines((1.0, 0.0), num_seen=6), task()
    longer = one.extended(batch, 1947)
    assert UNITS.times(longer[TIMES])[0, 7:].tolist() == [1935, 1940, 1945, 1947]
    assert longer[MASK].sum() == batch[MASK].sum() + batch[TARGET].sum()
    assert not longer[TARGET].any()
    table = one.table(longer, rows_of(one, Line([1.0, 0.0]), longer), ["", ""])
    assert np.isnan(table["hare_observed"][8:11]).all()
    assert table["hare"][10] == pytest.approx(10 + 2 * (0.5 + 47 / 5))


@pytest.mark.parametrize(
    ("until", "changes", "message"),
    [
        (1935, {}, "until=1935 must be after the data, which end at 1935"),
        ("soon", {}, "until=soon must be a number"),
        (math.inf, {}, "until=inf must be finite"),
        ("2026-01-31", {}, "until=2026-01-31 must be a number, as the times of the data are"),
        (
            9e9,
            {},
            "until=9000000000.0 is 1,799,999,613 times of the data's spacing away, more than 100,000: set it nearer",
        ),
        (1940, {CONTROLS: torch.zeros(2, 8, 1)}, "until=1940: the controls after the data are not known: give a file "),
    ],
)
def test_a_forecast_that_cannot_be_is_refused(until, changes, message):
    with pytest.raises(ValueError) as refused:
        task().extended({**lines((1.0, 0.0), num_seen=6), **changes}, until)
    assert str(refused.value).startswith(message)


def test_dates_are_read_and_written():
    days = Units((0.0, 0.0), (1.0, 1.0), False, 20_000.0, 1.0)
    one = Trajectory(days, ("a", "b"), "date", calendar="days", **KEYS)
    longer = one.extended(lines((1.0, 0.0), num_seen=6), "2024-10-16")
    table = one.table(longer, rows_of(one, Line([1.0, 0.0]), longer), ["", ""])
    assert table["date"][[0, 9, 10]].tolist() == ["2024-10-04", "2024-10-13", "2024-10-14"]
    for until in ("tomorrow", "today", "30", "2024-10-16T00:00Z"):
        with pytest.raises(
            ValueError, match=f"until={until} must be a date such as 2026-01-31, without a time zone, as"
        ):
            one.extended(lines((1.0, 0.0), num_seen=6), until)


def test_dates_below_a_figure_do_not_overlap():
    days = Units((0.0, 0.0), (1.0, 1.0), False, 20_000.0, 1.4)
    one, model = Trajectory(days, ("a", "b"), "date", calendar="days", **KEYS), Line([1.0, 0.0])
    batch = take(lines((1.0, 0.0), num_seen=6), slice(1))
    with torch.no_grad():
        figure = one.figures(model, batch, rows_of(one, model, batch))["series"]
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) > 5
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_dates_with_a_time_zone_are_those_of_utc():
    days = Units((0.0, 0.0), (1.0, 1.0), False, 20_000.0, 0.25)
    one = Trajectory(days, ("a", "b"), "date", calendar="days in UTC", **KEYS)
    batch = lines((1.0, 0.0), num_seen=6)
    longer = one.extended(batch, "2024-10-06T08:00+02:00")
    table = one.table(longer, rows_of(one, Line([1.0, 0.0]), longer), ["", ""])
    assert table["date"][[0, 1, 8]].tolist() == ["2024-10-04T00:00:00Z", "2024-10-04T06:00:00Z", "2024-10-06T00:00:00Z"]
    assert one.axis.time_label == "date (UTC)"
    with pytest.raises(ValueError, match="until=2024-10-16 must be a date with a time zone, such as 2026-01-31Z, as"):
        one.extended(batch, "2024-10-16")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"loss": "mape"}, "loss must be one of mse, mae, huber, log_mse, got mape"),
        ({"strategy": "half"}, "strategy must be one of auto, full, windows, growing, multiple_shooting, got half"),
        ({"window": 1}, "window must be at least 2, got 1"),
        ({"num_segments": 1}, "num_segments must be at least 2, got 1"),
        ({"grow_from": 0.0}, "grow_from must be above 0 and at most 1, got 0.0"),
        ({"match_until": 1.5}, "match_until must be from 0 to 1, got 1.5"),
        ({"continuity": 0.0}, "continuity must be positive, got 0.0"),
        ({"season": 0}, "season must be at least 1 or null, got 0"),
        (
            {"channel_weights": [1.0]},
            "channel_weights must be a number, 0 or more but not all 0, for each of hare, lynx, got [1.0]",
        ),
    ],
)
def test_a_setting_out_of_range_is_refused(keys, message):
    with pytest.raises(ValueError) as refused:
        task(**keys)
    assert str(refused.value) == message


def test_figures_of_two_channels_show_series_field_and_horizon():
    batch, one, model = lines((1.0, 0.0), num_seen=6), task(), Line([1.0, 0.0])
    with torch.no_grad():
        figures = one.figures(model, batch, rows_of(one, model, batch))
    assert set(figures) == {"series", "error_by_horizon", "phase_portrait"}
    hare = figures["series"].axes[0]
    assert (hare.get_xlabel(), hare.get_ylabel()) == ("year", "hare (thousands)")
    line = hare.get_lines()[0]
    assert line.get_xdata()[[0, -1]].tolist() == [1900, 1935]
    assert len(line.get_xdata()) == 7 * 16 + 1
    assert hare.get_lines()[1].get_xdata().tolist() == pytest.approx([1900, 1905, 1910, 1915, 1920, 1925])
    assert set(one.prediction_figures(batch, rows_of(one, model, batch))) == {"series"}
    full, empty = figures["phase_portrait"].axes[0].get_lines()[1:3]
    assert (len(full.get_xdata()), len(empty.get_xdata())) == (6, 2)
    assert empty.get_label() == "observed, not shown to it"
    assert all(tick == round(tick) for tick in figures["error_by_horizon"].axes[0].get_xticks())


def test_a_forecast_is_drawn_beside_the_last_value_that_was_shown():
    batch, one, model = lines((1.0, 0.0), num_seen=6), task(), Line([1.0, 0.0])
    batch[VALUES] = batch[VALUES] * torch.tensor([1.0, 0.5])[:, None, None]
    for count in (1, 2):
        few = take(batch, slice(count))
        with torch.no_grad():
            panels = one.figures(model, few, rows_of(one, model, few), ["a", "b"][:count])["series"].axes
        assert [axes.get_title() for axes in panels] == ([""] * 2 if count == 1 else ["a", "b", "", ""])
        for number in range(count):
            (line,) = (each for each in panels[number].collections if each.get_label() == "persistence")
            (ends,) = line.get_segments()
            last = UNITS.values(batch[VALUES])[number, 5, 0].item()
            np.testing.assert_allclose(ends, [[1925, last], [1935, last]])
            assert "forecast" in [patch.get_label() for patch in panels[number].patches]


@pytest.mark.parametrize(("train_ends", "begins"), [((1915.0,), [1915]), ((1925.0,), []), ((), [])])
def test_a_line_tells_where_validation_begins(train_ends, begins):
    batch, one, model = take(lines((1.0, 0.0), num_seen=6), slice(1)), task(train_ends=train_ends), Line([1.0, 0.0])
    with torch.no_grad():
        hare = one.figures(model, batch, rows_of(one, model, batch))["series"].axes[0]
    assert [line.get_xdata()[0] for line in hare.get_lines() if line.get_label() == "validation begins"] == begins


def test_units_of_values_stand_on_axes():
    batch, one, model = lines((1.0, 0.0), num_seen=6), task(channel_units=("thousands", "")), Line([1.0, 0.0])
    with torch.no_grad():
        figures = one.figures(model, batch, rows_of(one, model, batch))
    assert {axes.get_ylabel() for axes in figures["series"].axes} == {"hare (thousands)", "lynx"}
    assert [axes.get_ylabel() for axes in figures["error_by_horizon"].axes] == ["RMS error (thousands)", "RMS error"]
    assert figures["phase_portrait"].axes[0].get_xlabel() == "hare (thousands)"


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (["x/1", "x/2", "y/1", "y/2", "z/1", "z/2"], ["x/1", "y/1", "z/1"]),
        (["x", "y", "z", "u", "v", "w"], ["x", "y", "z"]),
        (["x/1", "x/2", "x/3", "y/1", "y/2", "y/3"], ["x/1", "x/3", "y/3"]),
        (["1", "2", "3", "4", "5", "6"], ["1", "3", "6"]),
    ],
)
def test_different_series_are_drawn_with_their_names(names, titles):
    batch = {name: tensor.repeat(3, *[1] * (tensor.dim() - 1)) for name, tensor in lines((1.0, 0.0), 6).items()}
    one, model = task(), Line([1.0, 0.0])
    with torch.no_grad():
        figure = one.figures(model, batch, rows_of(one, model, batch), names)["series"]
    assert [axes.get_title() for axes in figure.axes] == [*titles, "", "", ""]


@pytest.mark.parametrize("slope", [0.0, 1e-5])
def test_a_series_that_hardly_moves_has_a_phase_portrait_too(slope):
    batch, one, model = take(lines((slope, slope), num_seen=6), slice(1)), task(), Line([1.0, 0.5])
    with torch.no_grad():
        left, right = one.figures(model, batch, rows_of(one, model, batch))["phase_portrait"].axes[0].get_xlim()
    assert left < UNITS.values(batch[VALUES])[0, 0, 0] < right


def test_a_figure_says_which_series_it_leaves_out_and_has_one_legend():
    batch = {name: tensor.repeat(3, *[1] * (tensor.dim() - 1)) for name, tensor in lines((1.0, 0.0), 6).items()}
    one, model = task(), Line([1.0, 0.0])
    with torch.no_grad():
        figure = one.figures(model, batch, rows_of(one, model, batch))["series"]
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "3 of 6 series"
    shown = ["model", "observed", "observed, not shown to it", "forecast", "persistence"]
    assert sorted(text.get_text() for text in legend.get_texts()) == sorted(shown)
    assert all(axes.get_legend() is None for axes in figure.axes)


def test_the_table_at_the_end_shows_intervals_and_equations():
    known = {"value": 0.5, "std": 0.1, "low": 0.3, "high": 0.7, "is_identified": True}
    loose = {"value": 2.0, "std": None, "low": None, "high": None, "is_identified": False}
    equations = ["dhare/dyear = 0.5 hare"]
    assert task().shown({"parameters": {"a": known, "b": loose}, "equations": equations}) == {
        "a": "0.5 (0.3 to 0.7)",
        "b": "2, which the data do not identify",
        "dhare/dyear": "= 0.5 hare",
    }
    assert task().shown({"parameters": {"a": {"value": 0.0}}, "equations": equations}) == {"dhare/dyear": "= 0.5 hare"}
    assert task().shown({"parameters": {"a": {"value": 0.25}}}) == {"a": "0.25"}


def test_what_was_dropped_is_never_shown_but_counts():
    batch = lines((1.0, 2.0), num_seen=6)
    dropped = torch.zeros_like(batch[MASK][..., :1])
    dropped[:, 2] = True
    hidden = {**batch, DROPPED: dropped, MASK: batch[MASK] & ~dropped, TARGET: batch[TARGET] | dropped}
    poisoned = {**hidden, VALUES: torch.where(dropped, torch.nan, batch[VALUES])}
    one, model = task(), Line([1.0, 2.0])
    rows = rows_of(one, model, poisoned)
    unknown = rows["one_step"].isnan().all(2).nonzero()[:, 1].tolist()
    assert unknown == [0, 3, 0, 3]  # after a time that was not seen, a line has no value to go on from
    assert one.metrics(hidden, rows_of(one, Line([2.0, 2.0]), hidden))["rmse"] > one.metrics(hidden, rows)["rmse"]
    later = one.extended({**poisoned, TRUTH: batch[VALUES]}, 2000.0)
    assert not {DROPPED, TRUTH} & later.keys()
    assert not later[MASK][:, 2].any()
    assert later[TARGET][:, 2].all()
    assert later[MASK][:, [0, 1, 3, 4, 5, 6]].all()
    assert rows_of(one, model, later)["prediction"].isfinite().all()
