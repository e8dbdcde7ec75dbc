"""A payload that was changed anywhere is refused in words, or a run goes on from it: never an error in between."""

from __future__ import annotations

import copy
from contextlib import suppress

import pytest
import torch
from parts import make_part
from small_runs import build_ode_net, build_trainer

from node_cli.training.checkpoint import CheckpointError, evaluated_weights, load_into
from node_cli.training.payload import refusal
from node_cli.training.state import ContinuationError, TrainingError

pytestmark = pytest.mark.slow

GONE = object()


def make_trainer(**settings):
    model = build_ode_net(
        "odenet_mlp", make_part("solver", "dopri5", first_step="carried"), make_part("gradient", "direct")
    )
    adam = torch.optim.Adam
    return build_trainer(
        model, optimizer=lambda p: adam(p, lr=0.01), epochs=2, max_steps=2, average_decay=0.9, **settings
    )


def why(trainer, payload):
    parts = trainer.model, trainer.average, trainer.evaluated, trainer.optimizer, trainer.rate.state_dict()
    return refusal(payload, *parts)


@pytest.fixture(scope="module")
def saved():
    """The payload after one epoch of three, of a run with a moving average."""
    payloads = []
    folder = type("Kept", (), {"save": lambda self, payload, step, is_best: payloads.append(copy.deepcopy(payload))})()
    logger = type("None", (), {"takes_images": False, "log_scalars": lambda *a: None, "flush": lambda self: None})()
    make_trainer(save_every_steps=1).fit(logger, folder)
    return payloads[0], logger


def places(value, place=()):
    yield place
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    )
    for key, child in children:
        yield from places(child, (*place, key))


def changed(payload, place, change):
    """A copy with one value changed; None where the change makes no sense there."""
    copied = copy.deepcopy(payload)
    *above, last = place
    node = copied
    for key in above:
        node = node[key]
    if isinstance(node, tuple):
        return None
    if change is GONE:
        del node[last]
    else:
        node[last] = change(node[last])
    return copied


def other_shape(value):
    return torch.zeros(7, 3) if isinstance(value, torch.Tensor) else [value]


def not_a_number(value):
    return value * torch.nan if isinstance(value, torch.Tensor) and value.is_floating_point() else float("nan")


CHANGES = {
    "gone": GONE,
    "nothing": lambda value: None,
    "text": lambda value: "text",
    "a list": lambda value: [1, "a"],
    "a dict": lambda value: {"a": 1},
    "a number": lambda value: -3,
    "another shape": other_shape,
    "not a number": not_a_number,
    "another dtype": lambda value: value.to(torch.float16) if isinstance(value, torch.Tensor) else b"x",
    "more": lambda value: value | {"more": 1} if isinstance(value, dict) else [value, value],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_was_changed(change, saved):
    payload, logger = saved
    trainer = make_trainer()
    assert why(trainer, payload) == ""
    before = copy.deepcopy(trainer.model.state_dict())
    refused, accepted = 0, {}
    for place in list(places(payload))[1:]:
        odd = changed(payload, place, change)
        if odd is None:
            continue
        reason = why(trainer, odd)
        refused += bool(reason)
        assert "\n" not in reason
        if not reason:
            other = make_trainer()
            accepted[place[0]] = accepted.get(place[0], 0) + 1
            if accepted[place[0]] > 3:  # as those before
                continue
            with suppress(ContinuationError, TrainingError):  # another rate, or one of -3, say
                other.load_state_dict(odd)
                other.fit(logger, None)
        with suppress(CheckpointError):
            load_into(trainer.evaluated, evaluated_weights(odd))
    assert refused > 10
    assert trainer.model.state_dict().keys() == before.keys()
