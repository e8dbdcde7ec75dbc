"""Weights taken from another run, and parts that are not trained."""

import pytest
import torch
from parts import make_part
from small_runs import build_ode_net, build_trainer, image_dataset, point_dataset
from test_continuation import assert_continues_exactly, run
from torch import nn

from node_cli.config import ConfigError
from node_cli.training.checkpoint import write_checkpoint
from node_cli.training.starting import freeze, set_to_train, start_from


def net(gradient="direct", **changes):
    return build_ode_net("odenet", make_part("solver", "rk4", num_steps=1), make_part("gradient", gradient), **changes)


def saved(tmp_path, weights, average=None):
    path = tmp_path / "theirs.pt"
    write_checkpoint(path, {"model": weights, "average": average or {}})
    return str(path)


def test_all_of_a_run_is_taken_but_for_what_is_skipped(tmp_path):
    theirs, ours = net(), net()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    anew = ours.head[4].weight.detach().clone()
    told = start_from(ours, saved(tmp_path, theirs.state_dict()), ["head.4.weight"])
    assert told == f"starting from the weights in {tmp_path}/theirs.pt, but for head.4.weight"
    for name, weight in ours.named_parameters():
        assert torch.equal(weight, anew if name == "head.4.weight" else theirs.state_dict()[name]), name


def test_averaged_weights_are_taken_where_the_run_kept_some(tmp_path):
    theirs, ours = nn.Linear(2, 2), nn.Linear(2, 2)
    average = {f"module.{name}": 7 * torch.ones_like(w) for name, w in theirs.state_dict().items()}
    start_from(ours, saved(tmp_path, theirs.state_dict(), {**average, "n_averaged": torch.tensor(3)}), [])
    assert torch.equal(ours.weight, torch.full((2, 2), 7.0))


def test_step_sizes_of_their_solver_stay_behind(tmp_path):
    theirs = net().state_dict() | {"blocks.0._extra_state": torch.tensor([0.5, 0.25], dtype=torch.float64)}
    ours = net()
    start_from(ours, saved(tmp_path, theirs), [])
    assert ours.blocks[0].first_steps.forward is None


@pytest.mark.parametrize(
    ("change", "skip", "message"),
    [
        (
            lambda w: w | {"head.4.weight": torch.ones(3, 4), "head.4.bias": torch.ones(3)},
            [],
            (
                "init_from: the weights in {path} do not fit this model: head.4.weight is (3, 4) there and (2, 4) "
                "here, head.4.bias is (3,) there and (2,) here; list the parts that are to start anew: "
                "'init_skip=[head.4]'"
            ),
        ),
        (
            lambda w: {n: v for n, v in w.items() if not n.startswith("head.")},
            ["stem"],
            (
                "head.0.weight is only here, head.0.bias is only here, head.4.weight is only here and 1 more; list the "
                "parts that are to start anew: 'init_skip=[stem,head]'"
            ),
        ),
        (lambda w: w | {"tail.weight": torch.ones(1)}, [], "tail.weight is only there; list the parts"),
        (lambda w: w | {"head.4.bias": torch.full((2,), torch.nan)}, [], "head.4.bias is not finite there; list"),
        (lambda w: w | {"head.4.bias": "text"}, [], "head.4.bias is not a tensor there; list the parts"),
        (
            lambda w: w | {"head.4.bias": torch.ones(2, dtype=torch.int64)},
            [],
            "head.4.bias is torch.int64 there and torch.float32 here; list the parts",
        ),
        (
            lambda w: w,
            ["hed"],
            (
                "init_skip must name parts of the model, got 'hed': there are stem, blocks, head, and what they hold, "
                "such as blocks.0.vector_field.norm1.weight"
            ),
        ),
        (lambda w: w, [["head"]], "init_skip must name parts of the model, got ['head']: there are stem,"),
        (lambda w: w, ["stem", "blocks", "head"], "init_skip: nothing of {path} is left: list fewer parts, or leave"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_taken(change, skip, message, tmp_path):
    model = net()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    path = saved(tmp_path, change({name: w + 1 for name, w in net().state_dict().items()}))
    with pytest.raises(ConfigError) as error:
        start_from(model, path, skip)
    assert message.format(path=path) in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_checkpoint_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").write_bytes(b"half")
    for path, message in (
        (tmp_path / "no.pt", f"init_from: no checkpoint at {tmp_path}/no.pt"),
        (tmp_path / "no", f"init_from: no checkpoint at {tmp_path}/no/checkpoints/best.pt"),
        (tmp_path, f"init_from: {tmp_path}/checkpoints/best.pt is damaged, or no checkpoint of node-cli"),
    ):
        with pytest.raises(ConfigError) as error:
            start_from(net(), str(path), [])
        assert str(error.value).startswith(message)


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
@pytest.mark.parametrize("names", [["stem"], ["blocks.0.vector_field"], ["stem", "blocks.0", "head.4.bias"]])
def test_what_is_frozen_stays_and_the_rest_moves(gradient, names, tmp_path):
    model = net(gradient)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer = build_trainer(model, image_dataset(), freeze=names, average_decay=0.5)
    run(trainer, tmp_path / "run")
    frozen = {n for n in before if any(n == name or n.startswith(f"{name}.") for name in names)}
    stays = {n for n, w in model.named_parameters() if torch.equal(w, before[n])}
    assert frozen <= stays
    assert {n for n in stays - frozen if not n.endswith("bias")} == set()  # before a norm, a bias has no effect
    held = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for n, p in model.named_parameters() if n not in frozen}


def test_a_run_with_frozen_parts_goes_on_exactly(tmp_path):
    def build_run(**settings):
        model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5), build_point_net(), nn.BatchNorm1d(2))
        return build_trainer(model, point_dataset(), freeze=["0", "2.blocks"], **settings)

    assert_continues_exactly(build_run, tmp_path)


def build_point_net():
    return build_ode_net("odenet_mlp", make_part("solver", "rk4", num_steps=1), make_part("gradient", "direct"))


def test_running_means_of_frozen_parts_stay_and_nothing_drops_out_there():
    model = nn.Sequential(nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)), nn.BatchNorm1d(2), nn.Dropout(0.5))
    freeze(model, ["0"])
    set_to_train(model, ["0"])
    model(torch.randn(8, 2) + 3)
    assert torch.equal(model[0][0].running_mean, torch.zeros(2))
    assert not torch.equal(model[1].running_mean, torch.zeros(2))
    assert [module.training for module in model.modules()] == [True, False, False, False, True, True]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["sten"],
            "trainer.freeze must name parts of the model, got 'sten': there are stem, blocks, head, augment, and",
        ),
        (["stem", "head.9"], "trainer.freeze must name parts of the model, got 'head.9': there are"),
        ([""], "trainer.freeze must name parts of the model, got '': there are"),
        ([1], "trainer.freeze must name parts of the model, got 1: there are"),
        (["stem", "blocks", "head"], "trainer.freeze must leave something to train, got stem, blocks, head, which is"),
    ],
)
def test_names_that_cannot_be_frozen_are_refused(names, message):
    with pytest.raises(ConfigError) as error:
        freeze(net(), names)
    assert str(error.value).startswith(message)


def test_without_names_everything_is_trained():
    model = net()
    assert freeze(model, []) == list(model.parameters())
    model.requires_grad_(False)  # by the model itself
    assert freeze(model, []) == list(model.parameters())
