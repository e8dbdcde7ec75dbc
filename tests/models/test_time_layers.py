import pytest
import torch
import torch.nn.functional as F
from torch import nn

from node_cli.models.time_layers import TimeConv2d, TimeLinear


def concatenated_conv(layer, t, y):
    plane = t * torch.ones_like(y[:, :1])
    weight = torch.cat([layer.time_weight, layer.weight], dim=1)
    return F.conv2d(torch.cat([plane, y], dim=1), weight, layer.bias, padding=1)


def concatenated_linear(layer, t, y):
    column = t * torch.ones_like(y[:, :1])
    weight = torch.cat([layer.time_weight[:, None], layer.weight], dim=1)
    return F.linear(torch.cat([column, y], dim=1), weight, layer.bias)


CASES = {
    "conv": (lambda: TimeConv2d(3, 5), concatenated_conv, (4, 3, 6, 5)),
    "conv on one pixel": (lambda: TimeConv2d(3, 5), concatenated_conv, (4, 3, 1, 1)),
    "linear": (lambda: TimeLinear(3, 5), concatenated_linear, (4, 3)),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_layer_over_time_and_state_and_so_do_all_gradients(case):
    make, concatenated, shape = CASES[case]
    torch.manual_seed(0)
    layer = make().double()
    t = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    y = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    inputs = (t, y, layer.weight, layer.time_weight, layer.bias)

    ours, theirs = layer(t, y), concatenated(layer, t, y)
    cotangent = torch.randn_like(ours)

    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)
    gradients = [torch.autograd.grad(out, inputs, cotangent) for out in (ours, theirs)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def test_conv_is_initialised_as_the_plain_layer_with_one_channel_more():
    torch.manual_seed(3)
    layer = TimeConv2d(6, 4)
    torch.manual_seed(3)
    plain = nn.Conv2d(7, 4, 3)
    assert torch.equal(torch.cat([layer.time_weight, layer.weight], dim=1), plain.weight)
    assert torch.equal(layer.bias, plain.bias)


def test_linear_is_initialised_as_the_plain_layer_with_one_feature_more():
    torch.manual_seed(3)
    layer = TimeLinear(6, 4)
    torch.manual_seed(3)
    plain = nn.Linear(7, 4)
    assert torch.equal(torch.cat([layer.time_weight[:, None], layer.weight], dim=1), plain.weight)
    assert torch.equal(layer.bias, plain.bias)


@pytest.mark.parametrize("case", CASES)
def test_autocast_computes_in_bfloat16_with_a_gradient_for_everything(case):
    make, concatenated, shape = CASES[case]
    torch.manual_seed(0)
    layer = make()
    t = torch.tensor(0.7, requires_grad=True)
    y = torch.randn(shape, requires_grad=True)
    inputs = (t, y, *layer.parameters())

    with torch.autocast("cpu", torch.bfloat16):
        out = layer(t, y)
    expected = concatenated(layer, t, y)

    assert out.dtype == (torch.float32 if case == "linear" else torch.bfloat16)  # it adds the time in float32
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.02)
    gradients = torch.autograd.grad(out.float().sum(), inputs)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected.sum(), inputs), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.05 * float(theirs.abs().max()))


def test_time_in_float64_leaves_a_float32_state_in_float32():
    t = torch.tensor(0.5, dtype=torch.float64)
    assert TimeConv2d(2, 2)(t, torch.zeros(1, 2, 3, 3)).dtype == torch.float32
    assert TimeLinear(2, 2)(t, torch.zeros(1, 2)).dtype == torch.float32


def test_a_linear_layer_takes_a_time_for_each_sample():
    torch.manual_seed(0)
    layer = TimeLinear(3, 5).double()
    y, t = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)
    alone = [layer(t[i, 0], y[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(layer(t, y), torch.cat(alone), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(layer(t, y), concatenated_linear(layer, t, y), rtol=1e-13, atol=1e-13)


def test_a_convolution_takes_a_time_for_each_sample():
    torch.manual_seed(0)
    layer = TimeConv2d(3, 5).double()
    y, t = torch.randn(4, 3, 6, 5, dtype=torch.float64), torch.randn(4, 1, 1, 1, dtype=torch.float64)
    alone = [layer(t[i, 0, 0, 0], y[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(layer(t, y), torch.cat(alone), rtol=1e-13, atol=1e-13)
