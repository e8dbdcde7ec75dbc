"""Small models whose gradients are audited, and a loss in their own precision."""

import copy

import torch
from parts import make_gradient, make_solver
from training.small_runs import build_ode_net, image_dataset, point_dataset

from node_cli.audit.backward_pass import BackwardPass
from node_cli.audit.base import Case
from node_cli.tasks.task import Loss, Task

TWO_BLOCKS = {"num_blocks": 2, "augment_dim": 1, "learn_times": True}


class Squares(Task):
    """The mean of (output - target)^2; classification computes its loss in float32."""

    metric_names = ("loss",)
    objective = ("loss", "min")

    def loss(self, model, batch, progress):
        squares = (model(batch["inputs"]) - batch["targets"][:, None]).square()
        return Loss(squares.sum(), squares.new_tensor(squares.numel()), {})

    def predict(self, model, batch, generator):
        return {"output": model(batch["inputs"])}

    def metrics(self, batch, rows):
        return {"loss": (rows["output"] - batch["targets"][:, None]).square().mean().item()}


def mean_loss(task, model, batch):
    """What is minimised, with its graph."""
    total, weight, _ = task.loss(model, batch, 1.0)
    return total / weight


def make_case(solver, gradient="direct", **keys):
    return Case(solver, gradient, make_solver(solver, **keys), make_gradient(gradient), rtol=None)


def make_net(kind, case, dtype=torch.float64, **changes):
    return build_ode_net(kind, case.solver, case.gradient, **changes).to(dtype)


def make_batch(kind, dtype=torch.float64, size=6):
    """Inputs of `dtype` and class numbers."""
    dataset = image_dataset() if kind == "odenet" else point_dataset()
    split = dataset.splits["train"]
    return {"inputs": split["inputs"][:size].to(dtype), "targets": split["targets"][:size]}


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
