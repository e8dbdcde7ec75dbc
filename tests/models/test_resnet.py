import pytest
import torch

from node_cli.models.resnet import ResNet
from node_cli.models.stem import ResidualBlock

MNIST, DIGITS = (1, 28, 28), (1, 8, 8)
KEYS = {"width": 64, "num_blocks": 6, "stem": "conv", "num_downsamplings": "auto"}


def resnet(input_shape=DIGITS, **keys):
    return ResNet(input_shape=input_shape, num_outputs=10, **{**KEYS, **keys})


@pytest.mark.parametrize(
    ("input_shape", "num_blocks", "expected"), [(MNIST, 0, 132_874), (DIGITS, 6, 511_050), (MNIST, 6, 576_778)]
)
def test_number_of_parameters(input_shape, num_blocks, expected):
    assert sum(p.numel() for p in resnet(input_shape, num_blocks=num_blocks).parameters()) == expected


@pytest.mark.parametrize("stem", ["conv", "residual"])
@pytest.mark.parametrize("input_shape", [DIGITS, MNIST, (3, 32, 32)])
def test_every_parameter_of_a_small_one_gets_a_gradient(stem, input_shape):
    torch.manual_seed(0)
    model = resnet(input_shape, width=8, num_blocks=2, stem=stem)
    logits = model(torch.rand(4, *input_shape))
    assert logits.shape == (4, 10)
    logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_residual_block_adds_to_its_input():
    block = ResidualBlock(8, stride=1)
    torch.nn.init.zeros_(block.conv2.weight)
    y = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(y), y)


def test_a_residual_block_of_stride_two_halves_the_side_and_takes_its_shortcut_after_the_activation():
    block = ResidualBlock(8, stride=2)
    torch.nn.init.zeros_(block.conv2.weight)
    y = torch.randn(2, 8, 6, 6)
    expected = block.shortcut(torch.relu(block.norm1(y)))
    assert expected.shape == (2, 8, 3, 3)
    torch.testing.assert_close(block(y), expected)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"num_blocks": -1}, "num_blocks must be at least 0, got -1"),
        ({"stem": "none"}, "stem must be one of conv, residual, got 'none'"),
        (
            {"input_shape": (3,)},
            "model needs images (c, h, w), the dataset has points of shape (3,): use model=odenet_mlp or model=mlp",
        ),
    ],
)
def test_refuses_in_one_line(keys, message):
    with pytest.raises(ValueError) as error:
        resnet(**keys)
    assert str(error.value) == message
