import pytest
import torch
import torch.nn.functional as F
from parts import make_solver
from torch import nn

from node_cli.models.odenet import OdeNet
from node_cli.models.time_layers import TimeConv2d
from node_cli.ode.gradients.direct import Direct

MNIST, DIGITS, CIFAR = (1, 28, 28), (1, 8, 8), (3, 32, 32)
KEYS = {
    "width": 64,
    "num_blocks": 1,
    "stem": "conv",
    "num_downsamplings": "auto",
    "augment_dim": 0,
    "t0": 0.0,
    "t1": 1.0,
    "learn_times": False,
}


def odenet(input_shape=DIGITS, num_steps=1, **keys):
    solver = make_solver("rk4_38", num_steps=num_steps)
    return OdeNet(input_shape=input_shape, num_outputs=10, solver=solver, gradient=Direct(), **{**KEYS, **keys})


def count(model):
    return sum(p.numel() for p in model.parameters())


class ExampleField(nn.Module):
    """The vector field of torchdiffeq's examples/odenet_mnist.py, with the time concatenated."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(32, 64) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(65, 64, 3, padding=1) for _ in range(2))

    def forward(self, t, y):
        for norm, conv in zip(self.norms, self.convs, strict=False):
            y = F.relu(norm(y))
            y = conv(torch.cat([t * torch.ones_like(y[:, :1]), y], dim=1))
        return self.norms[2](y)


class ExampleBlock(nn.Module):
    """A solve from 0 to 1 with the 3/8 rule in `num_steps` steps, written out."""

    def __init__(self, num_steps):
        super().__init__()
        self.field = ExampleField()
        self.num_steps = num_steps

    def forward(self, y):
        h = 1 / self.num_steps
        for step in range(self.num_steps):
            t = step * h
            k1 = self.field(t, y)
            k2 = self.field(t + h / 3, y + h * k1 / 3)
            k3 = self.field(t + h * 2 / 3, y + h * (k2 - k1 / 3))
            k4 = self.field(t + h, y + h * (k1 - k2 + k3))
            y = y + h * (k1 + 3 * (k2 + k3) + k4) / 8
        return y


def example_network(num_steps=2):
    return nn.Sequential(
        nn.Conv2d(1, 64, 3),
        nn.GroupNorm(32, 64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 4, 2, 1),
        nn.GroupNorm(32, 64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 4, 2, 1),
        ExampleBlock(num_steps),
        nn.GroupNorm(32, 64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def copy_parameters(example, model):
    """From `example`, where a convolution's time channel is the first of its weight, to `model`."""
    field, ours = example[7].field, model.blocks[0].vector_field
    sources = [*[example[i] for i in (0, 1, 3, 4, 6)], *field.norms, *field.convs, example[8], example[12]]
    destinations = [
        *[m for m in model.stem.modules() if isinstance(m, nn.Conv2d | nn.GroupNorm)],
        *[ours.norm1, ours.norm2, ours.norm3, ours.conv1, ours.conv2],
        *[model.head[0], model.head[4]],
    ]
    with torch.no_grad():
        for source, destination in zip(sources, destinations, strict=True):
            destination.bias.copy_(source.bias)
            if isinstance(destination, TimeConv2d):
                destination.time_weight.copy_(source.weight[:, :1])
                destination.weight.copy_(source.weight[:, 1:])
            else:
                destination.weight.copy_(source.weight)


def test_is_the_network_of_the_torchdiffeq_example():
    torch.manual_seed(0)
    example, model = example_network(num_steps=2).double(), odenet(MNIST, num_steps=2).double()
    for parameter in example.parameters():  # norms too: at their initial ones and zeros a swap would go unseen
        nn.init.uniform_(parameter, -0.2, 0.2)
    copy_parameters(example, model)
    images = torch.rand(3, *MNIST, dtype=torch.float64)

    assert count(model) == count(example) == 208_266
    torch.testing.assert_close(model(images), example(images), rtol=1e-10, atol=1e-10)


def test_has_142538_parameters_on_digits():
    assert count(odenet(DIGITS)) == 142_538


@pytest.mark.parametrize("stem", ["conv", "residual"])
@pytest.mark.parametrize(("input_shape", "side"), [(DIGITS, 3), (MNIST, (6, 7)), (CIFAR, (7, 8)), ((1, 12, 40), 5)])
def test_maps_images_of_many_sizes_to_logits(stem, input_shape, side):
    model = odenet(input_shape, stem=stem, width=8)
    conv_side, residual_side = side if isinstance(side, tuple) else (side, side)
    images = torch.rand(2, *input_shape)
    assert model(images).shape == (2, 10)
    assert model.stem(images).shape[2] == (conv_side if stem == "conv" else residual_side)


@pytest.mark.parametrize("num_downsamplings", [0, 1, 3])
def test_downsamples_as_often_as_asked(num_downsamplings):
    model = odenet(MNIST, width=8, num_downsamplings=num_downsamplings)
    assert model.stem(torch.rand(2, *MNIST)).shape == (2, 8, 26 >> num_downsamplings, 26 >> num_downsamplings)


@pytest.mark.parametrize("width", [1, 6, 48])
def test_any_width_has_a_valid_number_of_norm_groups(width):
    assert odenet(width=width)(torch.rand(2, *DIGITS)).isfinite().all()


def test_augmentation_hands_channels_of_zeros_to_the_first_block():
    model = odenet(width=8, augment_dim=3, num_blocks=2)
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    images = torch.rand(2, *DIGITS)
    model(images)

    assert torch.equal(seen[0][:, :8], model.stem(images))
    assert torch.equal(seen[0][:, 8:], torch.zeros(2, 3, 3, 3))
    assert seen[1].shape == (2, 11, 3, 3)
    assert seen[1][:, 8:].abs().min() > 0
    assert model.head[-1].in_features == 11


def test_each_block_has_its_own_vector_field():
    one, three = count(odenet(width=8)), count(odenet(width=8, num_blocks=3))
    field = odenet(width=8).blocks[0].vector_field
    assert three - one == 2 * count(field)


@pytest.mark.parametrize("stem", ["conv", "residual"])
def test_gradient_flows_to_every_parameter(stem):
    torch.manual_seed(0)
    model = odenet(MNIST, stem=stem, width=8, num_blocks=2, augment_dim=1, learn_times=True)
    F.cross_entropy(model(torch.rand(4, *MNIST)), torch.arange(4)).backward()

    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []
    assert {"blocks.0.ts", "blocks.1.ts"} <= dict(model.named_parameters()).keys()


def test_autocast_gives_logits_close_to_float32():
    torch.manual_seed(0)
    model, images = odenet(width=16), torch.rand(4, *DIGITS)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    torch.testing.assert_close(logits.float(), model(images), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"num_blocks": 0}, "num_blocks must be at least 1, got 0"),
        ({"augment_dim": -1}, "augment_dim must be at least 0, got -1"),
        ({"stem": "resnet"}, "stem must be one of conv, residual, got 'resnet'"),
        ({"t0": 0.5, "t1": 0.5}, "t1 must differ from t0, got t0=0.5 t1=0.5"),
        (
            {"num_downsamplings": "twice"},
            "num_downsamplings must be auto or a whole number of at least 0, got 'twice'",
        ),
        ({"num_downsamplings": -1}, "num_downsamplings must be auto or a whole number of at least 0, got -1"),
        (
            {"num_downsamplings": 2},
            "num_downsamplings must be at most 1 for images of 8x8 pixels (2x2 must remain), got 2",
        ),
        (
            {"input_shape": (1, 28, 5)},
            "num_downsamplings must be at most 0 for images of 28x5 pixels (2x2 must remain), got auto",
        ),
        ({"input_shape": (1, 3, 3)}, "model needs images of at least 4x4 pixels, the dataset has 3x3"),
        (
            {"input_shape": (2,)},
            "model needs images (c, h, w), the dataset has points of shape (2,): use model=odenet_mlp or model=mlp",
        ),
    ],
)
def test_refuses_in_one_line(keys, message):
    with pytest.raises(ValueError) as error:
        odenet(**keys)
    assert str(error.value) == message
