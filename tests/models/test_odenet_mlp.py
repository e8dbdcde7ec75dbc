import pytest
import torch
import torch.nn.functional as F
from parts import make_solver

from node_cli.models.odenet_mlp import MlpField, OdeNetMlp
from node_cli.ode.gradients.direct import Direct

KEYS = {
    "width": 16,
    "num_hidden_layers": 2,
    "activation": "tanh",
    "num_blocks": 1,
    "augment_dim": 0,
    "t0": 0.0,
    "t1": 1.0,
    "learn_times": False,
}


def odenet_mlp(input_shape=(2,), **keys):
    solver = make_solver("rk4", num_steps=2)
    return OdeNetMlp(input_shape=input_shape, num_outputs=2, solver=solver, gradient=Direct(), **{**KEYS, **keys})


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
@pytest.mark.parametrize("num_hidden_layers", [1, 3])
def test_gradient_flows_to_every_parameter(activation, num_hidden_layers):
    torch.manual_seed(0)
    model = odenet_mlp(
        (3,),
        activation=activation,
        num_hidden_layers=num_hidden_layers,
        num_blocks=2,
        augment_dim=2,
        learn_times=True,
    )
    F.cross_entropy(model(torch.randn(8, 3)), torch.arange(8) % 2).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_vector_field_is_a_multilayer_perceptron_over_time_and_state():
    field = MlpField(3, 7, 1, torch.nn.Tanh())
    t, y = torch.tensor(0.3), torch.randn(5, 3)
    hidden = torch.tanh(y @ field.hidden[0].weight.T + t * field.hidden[0].time_weight + field.hidden[0].bias)
    expected = hidden @ field.output.weight.T + t * field.output.time_weight + field.output.bias
    torch.testing.assert_close(field(t, y), expected)


def test_augmentation_hands_zeros_to_the_first_block():
    model = odenet_mlp(augment_dim=3)
    seen = []
    model.blocks[0].register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    points = torch.randn(4, 2)
    model(points)
    assert torch.equal(seen[0], F.pad(points, (0, 3)))
    assert model.head.in_features == 5


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be at least 1, got 0"),
        ({"num_blocks": 0}, "num_blocks must be at least 1, got 0"),
        ({"augment_dim": -2}, "augment_dim must be at least 0, got -2"),
        ({"activation": "elu"}, "activation must be one of tanh, relu, softplus, got 'elu'"),
        ({"t1": 0.0}, "t1 must differ from t0, got t0=0.0 t1=0.0"),
        (
            {"input_shape": (1, 8, 8)},
            (
                "model needs points (d,), the dataset has images of shape (1, 8, 8): "
                "use model=odenet, model=resnet or model=mlp"
            ),
        ),
    ],
)
def test_refuses_in_one_line(keys, message):
    with pytest.raises(ValueError) as error:
        odenet_mlp(**keys)
    assert str(error.value) == message
