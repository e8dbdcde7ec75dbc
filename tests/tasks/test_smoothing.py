import torch

from node_cli.tasks.smoothing import smooth


def grid(count: int) -> torch.Tensor:
    return torch.linspace(0, 3, count, dtype=torch.float64)[None]


def test_parabolas_are_found_exactly_whatever_was_not_observed():
    times = grid(20).repeat(2, 1)
    values = torch.stack([1 + 2 * times - times**2, 3 * times], dim=2)
    observed = torch.rand(values.shape, generator=torch.Generator().manual_seed(0)) < 0.8
    smoothed, slopes = smooth(times, torch.where(observed, values, 77.0), observed)
    torch.testing.assert_close(smoothed, values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slopes, torch.stack([2 - 2 * times, 3 + 0 * times], dim=2), rtol=1e-4, atol=1e-4)


def test_noise_is_smoothed_more_than_a_curve_is():
    times = grid(120)
    noise = 0.2 * torch.randn(1, 120, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    curve = (2 * times).sin()[..., None]
    observed = torch.ones(1, 120, 1, dtype=torch.bool)
    smoothed, slopes = smooth(times, curve + noise, observed)
    assert (smoothed - curve).square().mean() < 0.2 * noise.square().mean()
    assert (slopes - 2 * (2 * times).cos()[..., None])[:, 5:-5].abs().mean() < 0.6
    exact, exact_slopes = smooth(times, curve, observed)
    assert (exact - curve).abs().max() < 1e-3
    assert (exact_slopes - 2 * (2 * times).cos()[..., None])[:, 2:-2].abs().max() < 1e-2


def test_a_channel_of_three_observations_has_no_slope_and_padding_changes_nothing():
    times = torch.tensor([[0.0, 1, 2, 3, 4, 5, 5, 5]], dtype=torch.float64)
    values = torch.stack([times[0] ** 2, times[0]], dim=1)[None]
    observed = torch.ones(1, 8, 2, dtype=torch.bool)
    observed[:, 6:] = False
    observed[:, 3:, 1] = False
    _, slopes = smooth(times, values, observed)
    assert slopes[..., 1].isnan().all()
    torch.testing.assert_close(slopes[0, :6, 0], 2 * times[0, :6], rtol=1e-4, atol=1e-4)
