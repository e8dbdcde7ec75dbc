"""Two processes, each with a share of the batch, take the steps and have the gradients of one process."""

import re

import pytest
import shared_solves
import torch
from problems import Wave
from shared_solves import ALONE, CASES, DOUBLE, FAILING, FAILING_AT_OWN_TIMES, SHARES, SINGLE, WHOLE, run, run_tuple

pytestmark = pytest.mark.slow

COUNTS = ("nfe", "num_accepted", "num_rejected")


@pytest.fixture(scope="module")
def ranks(begin, tmp_path_factory):
    """What two processes found in all cases."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = [begin(folder, "shared_solves", str(rank)) for rank in (0, 1)]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(said)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def together(ranks, name):
    """The shares put together, and gradients of what both have in common summed."""
    first, second = (rank[name] for rank in ranks)
    return {
        "ys": [torch.cat(pair, 1) for pair in zip(first["ys"], second["ys"], strict=True)],
        "y0": [torch.cat(pair) for pair in zip(first["y0"], second["y0"], strict=True)],
        **{key: [grad + second["sums"][key]] for key, grad in first["sums"].items()},
    }


def counts_of(result):
    return [[stats[key] for key in COUNTS] for stats in result["stats"] + result["backward_stats"]]


def step_sizes_of(result):
    return [size for stats in result["stats"] + result["backward_stats"] for size in stats["step_sizes"]]


@pytest.mark.parametrize("name", [*DOUBLE, *SINGLE])
def test_steps_states_and_gradients_are_those_of_one_process(ranks, name):
    tolerance = 1e-11 if name in DOUBLE else 1e-5
    whole = run(CASES[name], WHOLE)
    assert "error" not in whole
    assert counts_of(ranks[0][name]) == counts_of(whole)
    assert step_sizes_of(ranks[0][name]) == pytest.approx(step_sizes_of(whole), rel=10 * tolerance)
    found = together(ranks, name)
    expected = {"ys": whole["ys"], "y0": whole["y0"], **{key: [grad] for key, grad in whole["sums"].items()}}
    assert found.keys() == expected.keys()
    for key, tensors in expected.items():
        for ours, theirs in zip(found[key], tensors, strict=True):
            assert (ours - theirs).norm() <= tolerance * theirs.norm(), key


@pytest.mark.parametrize("name", [*DOUBLE, *SINGLE])
def test_processes_agree_to_the_last_bit_and_evaluate_equally_often(ranks, name):
    first, second = (rank[name] for rank in ranks)
    for key in ("stats", "backward_stats", "first_steps"):
        assert first[key] == second[key]


def test_the_cases_reject_steps_and_carry_them():
    assert run(DOUBLE["rejected"], WHOLE)["stats"][0]["num_rejected"] > 0
    for name in ("carried", "adjoint carried"):
        first_steps = run(DOUBLE[name], WHOLE)["first_steps"]
        assert len(set(first_steps)) == 3
        assert all(step[0] is not None for step in first_steps)


@pytest.mark.parametrize("name", ALONE)
def test_without_it_each_process_has_steps_of_its_own(ranks, name):
    whole = run(CASES[name], WHOLE)
    steps = [step_sizes_of(result) for result in (ranks[0][name], ranks[1][name], whole)]
    assert steps[0] != steps[1]
    assert ranks[0][name]["reduced"] == []
    difference = together(ranks, name)["ys"][0] - whole["ys"][0]
    assert difference.norm() > 1e-8 * whole["ys"][0].norm()


@pytest.mark.parametrize("name", FAILING)
def test_what_fails_in_one_process_fails_in_all_by_the_same_error(ranks, name):
    expected, first, second = (result["error"] for result in (run(CASES[name], WHOLE), *(rank[name] for rank in ranks)))
    assert first == second
    assert first.startswith("SolveError: the ODE solve failed at t = ")
    if CASES[name].vector_field == "wave":
        assert first == expected
    else:  # how often a solve tries to come near to a pole is a matter of rounding
        assert first.partition("evaluations")[2] == expected.partition("evaluations")[2]


@pytest.mark.parametrize("name", FAILING_AT_OWN_TIMES)
def test_at_own_times_the_process_that_has_the_sample_names_it(ranks, name):
    whole, first, second = (result["error"] for result in (run(CASES[name], WHOLE), *(rank[name] for rank in ranks)))
    number, reason = re.search(r"evaluations: sample ([5-7]): (.*)", whole).groups()
    assert first.partition("evaluations: ")[2] == reason
    assert second.partition("evaluations: ")[2] == f"sample {int(number) - 5}: {reason}"


def test_one_small_reduction_for_each_norm(ranks):
    result = ranks[0]["interpolated"]
    (stats,) = result["stats"]
    assert result["reduced"] == [2] * (stats["num_accepted"] + stats["num_rejected"] + 2)  # two choose the first step
    assert set(ranks[0]["max"]["reduced"]) == {1}


@pytest.mark.parametrize(("norm", "num_parts"), [("full", 6), ("semi", 2)])
def test_the_adjoint_sums_parameter_gradients_where_its_norm_sees_them(ranks, norm, num_parts):
    result = ranks[0][f"adjoint {norm}"]
    (stats,) = result["backward_stats"]
    attempts = stats["num_accepted"] + stats["num_rejected"]
    assert result["reduced"].count(2 * num_parts) == attempts + 2
    # Time gradients evaluate without, and the last slope once more.
    sums = stats["nfe"] - len(shared_solves.TIMES) - 1 if norm == "full" else 0
    num_parameters = sum(parameter.numel() for parameter in Wave().parameters())
    assert result["reduced"].count(num_parameters) == sums


def test_gradients_of_tensors_of_each_sample_are_refused_where_they_would_be_summed(ranks):
    expected = (
        'ArgumentError: sync_steps=True with norm="full" has gradients of parameters only, and the vector field uses a '
        'tensor of shape {} that is not a parameter: take norm="semi" ("seminorm" in adjoint_options), or '
        'gradient="checkpoint"'
    )
    found = [rank["of each sample, full"]["error"] for rank in ranks]
    assert found == [expected.format(shape) for shape in ((5, 3), (3, 3))]


def test_a_vector_field_that_has_changed_in_one_process_is_refused_in_all(ranks):
    first, second = (rank["changed"]["error"] for rank in ranks)
    assert first == second
    assert first.startswith("ArgumentError: the vector field has changed since the solve")


def test_a_tuple_of_states(ranks):
    whole = run_tuple(WHOLE)
    first, second = (rank["tuple"] for rank in ranks)
    assert first["step_sizes"] == second["step_sizes"] == pytest.approx(whole["step_sizes"], rel=1e-10)
    for ours, theirs, all_of_it in zip(first["ys"], second["ys"], whole["ys"], strict=True):
        torch.testing.assert_close(torch.cat([ours, theirs], 1), all_of_it, rtol=1e-11, atol=1e-12)


def test_alone_it_changes_nothing():
    case = DOUBLE["adjoint full"]
    with_it, without = run(case, SHARES[0]), run(ALONE["adjoint full, alone"], SHARES[0])
    assert with_it["stats"] == without["stats"]
    assert all(torch.equal(with_it["sums"][key], grad) for key, grad in without["sums"].items())
