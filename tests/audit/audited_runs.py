"""Runs with and without an audit between their epochs, and what they leave."""

import torch
from small_models import make_case
from torch.nn import functional as F
from training.small_runs import Recorder, build_ode_net, build_trainer, point_dataset

from node_cli.audit.training import TrainingAudit
from node_cli.tasks.classification import Classification
from node_cli.training.checkpoint import Checkpoints, read_checkpoint

CLOCKS = ("time/step_ms", "memory/peak_mb", "seconds")
STEPS_PER_EPOCH = 3


class NoisyHead(torch.nn.Module):
    """Running means, and dropout that also judging draws: whoever runs the model itself leaves a trace."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(2)

    def forward(self, logits):
        return F.dropout(self.norm(logits), 0.1, training=True)


def make_audit(model, dataset=None, **changes):
    settings = {"seed": 0, "precision": "float32", "every_n_epochs": 1, "batch_size": 8, "reference_rtol": 1e-4}
    return TrainingAudit(
        model=model,
        task=Classification(("a", "b"), label_smoothing=0.0),
        dataset=point_dataset() if dataset is None else dataset,
        **settings | changes,
    )


def make_run(case, every_n_epochs, dataset=None, audited=None, **settings):
    """A trainer of a small ODE-Net with a noisy head; `audited` are further settings of the audit."""
    net = build_ode_net("odenet_mlp", case.solver, case.gradient, num_blocks=2)
    model = torch.nn.Sequential(net, NoisyHead())
    audit = make_audit(model, dataset, every_n_epochs=every_n_epochs, **audited or {})
    return build_trainer(model, dataset, audit=audit, **settings)


def run(trainer, folder):
    """The scalars of a run, and its checkpoints by their steps: less clocks, and apart from them the audit's."""
    recorder = Recorder()
    trainer.fit(recorder, Checkpoints(folder, keep=100))
    kept = [record for record in recorder.scalars if record[1] not in CLOCKS]
    audits = [record for record in kept if record[1].startswith("audit/")]
    states = {int(path.stem[5:]): plain(read_checkpoint(path)) for path in folder.glob("step-*.pt")}
    return [record for record in kept if record not in audits], states, audits


def plain(tree):
    """The same containers with text for tensors, less clocks and figures of the audit."""
    if isinstance(tree, torch.Tensor):
        return str(tree.dtype), repr(tree.tolist())
    if isinstance(tree, dict):
        return {
            key: plain(value) for key, value in tree.items() if key not in CLOCKS and not str(key).startswith("audit/")
        }
    return [plain(value) for value in tree] if isinstance(tree, list) else tree


def fine_case(gradient="direct"):
    """Of a solver that carries its first step over from batch to batch."""
    return make_case("dopri5", gradient, first_step="carried", rtol=1e-2, atol=1e-2)
