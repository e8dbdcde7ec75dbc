"""Small models whose gradients are audited, and a loss in their own precision."""

import copy

import torch
from parts import make_gradient, make_solver
from training.small_runs import build_ode_net, image_dataset, point_dataset

from node_cli.audit.backward_pass import BackwardPass
from node_cli.audit.case import Case

TWO_BLOCKS = {"num_blocks": 2, "augment_dim": 1, "learn_times": True}


class Squares:
    """The mean of (output - target)^2; classification computes its loss in float32."""

    metric_names = ("loss",)

    def loss(self, model, batch):
        outputs = model(batch[0])
        return (outputs - batch[1][:, None]).square().mean(), {}


def make_case(solver, gradient="direct", **keys):
    return Case(solver, gradient, make_solver(solver, **keys), make_gradient(gradient), rtol=None)


def make_net(kind, case, dtype=torch.float64, **changes):
    return build_ode_net(kind, case.solver, case.gradient, **changes).to(dtype)


def make_batch(kind, dtype=torch.float64, size=6):
    """Inputs of `dtype` and class numbers."""
    dataset = image_dataset() if kind == "odenet" else point_dataset()
    split = dataset.splits["train"]
    return split.inputs[:size].to(dtype), split.targets[:size]


def make_passes(kind, case, dtype=torch.float64, precision="float32", **changes):
    return BackwardPass(make_net(kind, case, dtype, **changes), Squares(), make_batch(kind, dtype), precision)


def state_of(model):
    """All that a model holds and that a run can tell: a copy."""
    return copy.deepcopy(
        {
            "state": model.state_dict(),
            "buffers": dict(model.named_buffers()),
            "gradients": {name: p.grad for name, p in model.named_parameters()},
            "asks": {name: p.requires_grad for name, p in model.named_parameters()},
            "modes": {name: module.training for name, module in model.named_modules()},
        }
    )
