import pytest
import torch

from node_cli.models.mlp import Mlp


def test_has_the_papers_number_of_parameters_on_mnist():
    model = Mlp(input_shape=(1, 28, 28), num_outputs=10, width=300)
    assert sum(p.numel() for p in model.parameters()) == 238_510


@pytest.mark.parametrize("input_shape", [(2,), (1, 8, 8), (3, 32, 32)])
def test_takes_points_and_images(input_shape):
    assert Mlp(input_shape=input_shape, num_outputs=3, width=5)(torch.rand(4, *input_shape)).shape == (4, 3)


def test_refuses_a_width_of_zero():
    with pytest.raises(ValueError, match=r"^width must be at least 1, got 0$"):
        Mlp(input_shape=(2,), num_outputs=2, width=0)
