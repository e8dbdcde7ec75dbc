"""Two processes that train together, through gloo, against one that trains alone."""

import math
import socket

import pytest
import shared_training
import torch
from shared_series import SERIES
from shared_training import APART, CASES, EXACT, IN_STEP, alone, train_series

from node_cli.training.checkpoint import read_checkpoint

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def folder(begin, tmp_path_factory):
    """What two processes have left of all cases."""
    folder, port = tmp_path_factory.mktemp("together"), free_port()
    processes = [begin(folder, "shared_training", str(rank), str(folder), port) for rank in (0, 1)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return folder


@pytest.fixture(scope="module")
def ranks(folder):
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_all_processes_have_the_same_weights_to_the_last_bit(case, ranks):
    first, second = (rank[case] for rank in ranks)
    assert all(torch.equal(weight, second["weights"][name]) for name, weight in first["weights"].items())
    assert all(map(torch.equal, first["grads"], second["grads"]))
    assert torch.equal(first["outputs"], second["outputs"])
    assert first["metrics"] == second["metrics"]
    assert len(first["grads"]) == 6


@pytest.mark.parametrize("case", [*EXACT, *IN_STEP])
def test_gradients_and_figures_are_those_of_one_process(case, ranks, tmp_path):
    one, both = alone(case, tmp_path), ranks[0][case]
    tolerance = 1e-6 if case in EXACT else 1e-12  # rounding of float32, and of float64
    first, expected = both["grads"][0], one["grads"][0]
    assert (first - expected).norm() <= tolerance * expected.norm()
    assert both["nfe"] == one["nfe"]
    assert ranks[1][case]["nfe"] == one["nfe"][:-1]  # the test's are the first one's to tell
    for name, weight in one["weights"].items():  # rounding has grown over six updates
        torch.testing.assert_close(both["weights"][name], weight, rtol=1e-4, atol=1e-5)
    for tag in ("train/loss", "train/accuracy", "val/loss", "test/loss"):
        ours, theirs = ([value for _, found, value in side["scalars"] if found == tag] for side in (both, one))
        assert ours == pytest.approx(theirs, rel=1e-4), tag
    assert both["metrics"]["accuracy"] == one["metrics"]["accuracy"]


@pytest.mark.parametrize("case", APART)
def test_without_sync_steps_each_process_chooses_its_own(case, ranks, tmp_path):
    """Else the test above could not fail."""
    one, both = alone(case, tmp_path), ranks[0][case]
    difference = (both["grads"][0] - one["grads"][0]).norm() / one["grads"][0].norm()
    assert difference > 1e-3


def test_a_batch_that_fails_in_one_process_fails_in_all(ranks):
    first, second = (rank["failures raise"] for rank in ranks)
    assert first["error"] == second["error"]
    assert "the ODE solve failed at t = 0 after 7 evaluations: the step size underflowed" in first["error"]


@pytest.mark.parametrize(("policy", "counts"), [("skip_batch", (2, 0)), ("fallback", (0, 2))])
def test_policies_hold_for_all_processes(policy, counts, ranks):
    first, second = (rank[f"failures {policy}"] for rank in ranks)
    assert first["error"] == second["error"] == ""
    assert first["counts"] == second["counts"] == counts
    assert first["failed"] == second["failed"] == [1, 1]
    assert all(map(torch.equal, first["weights"], second["weights"]))


def test_a_failure_keeps_its_sentence_and_its_figures_on_the_way(ranks):
    first, second = (rank["first failure"] for rank in ranks)
    assert first == second
    assert first["nfe"] == 7
    assert first["error"].startswith("the ODE solve failed at t = 0 after 7 evaluations")


def test_a_loss_that_is_not_finite_in_one_process_reaches_the_weights_of_none(ranks):
    first, second = (rank["bad step"]["error"] for rank in ranks)
    assert first == second
    assert first.startswith("step 1: the loss or its gradient is not finite (loss nan")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_all_and_nothing_is_lost(rank, ranks):
    """With dropout, whose random numbers differ, and running means, which each process has of its share."""
    for process in ranks:
        assert process[f"stopped {rank}"]["status"] == 143
        assert process[f"stopped {rank}"]["saved"] == 4
        for name, weight in process["uninterrupted"]["weights"].items():
            assert torch.equal(process[f"stopped {rank}"]["weights"][name], weight), name


def test_random_numbers_are_each_process_s_own(folder):
    known = read_checkpoint(folder / "uninterrupted" / "last.pt")["processes"]
    assert len(known) == 2
    assert not torch.equal(known[0]["random"]["cpu"], known[1]["random"]["cpu"])


def test_only_the_first_process_writes(ranks, folder):
    assert {path.name for path in (folder / "uninterrupted").iterdir()} == {
        *("best.pt", "last.pt", "step-00000003.pt", "step-00000006.pt")
    }


def test_a_process_without_a_sample_changes_nothing(ranks, tmp_path):
    one = shared_training.tiny_batches(shared_training.ALONE, tmp_path)
    for both in (rank["tiny batches"] for rank in ranks):
        for name, weight in one["weights"].items():
            torch.testing.assert_close(both["weights"][name], weight, rtol=1e-5, atol=1e-6)
        assert both["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
        assert torch.equal(both["outputs"], one["outputs"])


@pytest.mark.parametrize("case", SERIES)
def test_sums_over_observed_values_are_those_of_one_process(case, ranks, tmp_path):
    """Of series whose halves of a batch hold very different numbers of them, in batches of 4, 4 and 1."""
    one = train_series(case, shared_training.ALONE, tmp_path)
    for both in (rank[case] for rank in ranks):
        for kind, expected in one.items():
            ours, theirs = (dict(flattened(kind, each)) for each in (both[kind], expected))
            if kind == "values" and both is ranks[1][case]:
                continue  # the first process writes those
            assert ours == pytest.approx(theirs, rel=1e-8, abs=1e-10, nan_ok=True), kind


def flattened(name, found):
    """Each number of nested results, with its name."""
    if isinstance(found, torch.Tensor):
        found = found.tolist()
    if isinstance(found, dict | list):
        for key, each in found.items() if isinstance(found, dict) else enumerate(found):
            yield from flattened(f"{name}/{key}", each)
    else:
        yield name, math.nan if found is None else found
