"""A vector field that is run again for the gradient is the one that was solved, or `backward()` refuses.

Each case is a field, and what happens between the solve and the backward pass. It is `sound` where the gradient must be
that of `direct`, whose first backward pass runs nothing again.
"""

from dataclasses import dataclass

import pytest
import torch
from gradient_checks import adaptive, fixed, loss_of, solve
from problems import times
from torch import nn

from node_cli.ode.gradients import backward_solve
from node_cli.ode.gradients.same_field import Difference

CHANGED = (
    r"^the vector field has changed since the solve: evaluated again for the gradient, it returns other values at t = "
)


class Scaled(nn.Module):
    """Its scale is a buffer that is replaced or filled, or a number."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3).double()
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))
        self.factor = 1.0

    def forward(self, t, y):
        return torch.tanh(self.linear(y)) * self.scale * self.factor


class WarmStart(Scaled):
    last = 0.0

    def forward(self, t, y):
        dy = super().forward(t, y) / (1 + self.last**2)
        self.last = dy.detach().mean()
        return dy


class Spectral(Scaled):
    def __init__(self):
        super().__init__()
        with torch.no_grad():  # its singular values lie close together, so its power iteration takes long
            self.linear.weight.mul_(0.1).add_(torch.eye(3, dtype=torch.float64))
        self.linear = nn.utils.parametrizations.spectral_norm(self.linear)


class Noisy(Scaled):
    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, t, y):
        noise = torch.randn((), generator=self.generator, dtype=torch.float64)
        return super().forward(t, y) * (1 + noise / 10)


class Dropout(Scaled):
    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def forward(self, t, y):
        return super().forward(t, self.dropout(y))


class NoiseOnce(Scaled):
    noise = None

    def forward(self, t, y):
        if self.noise is None:
            self.noise = torch.randn_like(y)
        return super().forward(t, y) * self.noise


class Lazy(Scaled):
    def __init__(self):
        super().__init__()
        self.linear = nn.LazyLinear(3, dtype=torch.float64)


class Normed(Scaled):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3, dtype=torch.float64)
        self.image_norm = nn.InstanceNorm1d(1, track_running_stats=True, dtype=torch.float64)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, t, y):
        self.calls += 1
        return super().forward(t, self.norm(y)) + self.image_norm(y[:, None])[:, 0]


class Attention(Scaled):
    """In evaluation mode torch takes other kernels for it where there is no graph."""

    def __init__(self):
        super().__init__()
        self.attention = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval()

    def forward(self, t, y):
        wide = torch.cat([y, y[:, :1]], 1).float()
        return super().forward(t, self.attention(wide[:, None])[:, 0, :3].double())


def nothing(field):
    pass


def replaces(field):
    field.scale = field.scale + 1e-9


def fills(field):
    field.scale.data.add_(0.5)


def changes_number(field):
    field.factor = 1.1


@dataclass(frozen=True)
class Case:
    field: type[nn.Module]
    change: object = nothing
    sound: bool = False


CASES = {
    "replaced": Case(Scaled, replaces),
    "filled": Case(Scaled, fills),
    "number": Case(Scaled, changes_number),
    "memory": Case(WarmStart),
    "spectral norm": Case(Spectral),
    "own noise": Case(Noisy),
    "dropout": Case(Dropout),
    "noise once": Case(NoiseOnce, sound=True),
    "lazy": Case(Lazy, sound=True),
    "running means": Case(Normed, sound=True),
    "attention": Case(Attention, sound=True),
    "as it was": Case(Scaled, sound=True),
}
SOLVERS = {
    "grid": fixed("rk4", num_steps=3),
    "one step": fixed("euler", num_steps=1),
    "joint": adaptive("dopri5", rtol=1e-4, atol=1e-4),
    "per sample": adaptive("bosh3", rtol=1e-3, atol=1e-3, batching="per_sample"),
}
TS = times(0.0, 0.4, 1.0)
START = torch.tensor([[0.4, -0.2, 0.8], [1.0, 0.1, -1.5], [1.0, 0.0, 0.3]], dtype=torch.float64)


def differentiated(case, solver, gradient, **keys):
    """Gradients and buffers after a solve, the change, and a backward pass."""
    torch.manual_seed(0)
    field, y0 = case.field(), START.clone().requires_grad_()
    ys = solve(gradient, solver, field, y0, TS, **keys).ys
    case.change(field)
    loss_of(ys).backward()
    grads = {name: p.grad for name, p in field.named_parameters() if p.grad is not None}
    return {"y0": y0.grad, **grads, **dict(field.named_buffers())}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("keys", [{}, {"max_checkpoints": 2}], ids=["all states", "two states"])
def test_checkpoint_equals_direct_or_refuses(case, solver, keys):
    if case == "running means" and solver == "per sample":
        return  # its samples see each other
    case, solver = CASES[case], SOLVERS[solver]
    if not case.sound:
        with pytest.raises(ValueError, match=CHANGED):
            differentiated(case, solver, "checkpoint", **{"max_checkpoints": None, **keys})
        return
    found = differentiated(case, solver, "checkpoint", **{"max_checkpoints": None, **keys})
    expected = differentiated(case, solver, "direct")
    assert found.keys() == expected.keys()
    tolerance = 1e-6 if case.field is Attention else 0  # its kernels differ
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_adjoint_has_its_own_gradient_or_refuses(case):
    case = CASES[case]
    if not case.sound:
        with pytest.raises(ValueError, match=CHANGED):
            differentiated(case, fixed("rk4", num_steps=3), "adjoint")
        return
    solver = adaptive("dopri5", rtol=1e-6, atol=1e-6)
    found, expected = (differentiated(case, solver, gradient) for gradient in ("adjoint", "direct"))
    if case.field is Attention:
        return  # float32 and corners
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("create_graph", [False, True], ids=["second backward pass", "second derivative"])
@pytest.mark.parametrize("case", CASES)
def test_direct_refuses_where_it_runs_steps_again(case, create_graph):
    case, y0 = CASES[case], START.clone().requires_grad_()
    torch.manual_seed(0)
    field = case.field()
    loss = loss_of(solve("direct", fixed("rk4", num_steps=2), field, y0, TS).ys)
    (first,) = torch.autograd.grad(loss, y0, retain_graph=True)
    buffers = {name: value.clone() for name, value in field.named_buffers()}
    case.change(field)
    if not case.sound:
        with pytest.raises(ValueError, match=CHANGED):
            torch.autograd.grad(loss, y0, create_graph=create_graph)
        return
    (second,) = torch.autograd.grad(loss, y0, create_graph=create_graph)
    torch.testing.assert_close(second.detach(), first, rtol=1e-5 if case.field is Attention else 1e-10, atol=1e-7)
    assert all(torch.equal(value, buffers[name]) for name, value in field.named_buffers())


def test_a_control_for_each_solve_and_one_backward_pass_are_refused():
    field, y = Scaled(), START.clone()
    for i in range(3):
        field.scale = torch.tensor(1.0 + i, dtype=torch.float64)
        y = solve("checkpoint", fixed(num_steps=2), field, y, TS).ys[-1]
    with pytest.raises(ValueError, match=CHANGED):
        y.sum().backward()


class Kept(nn.Module):
    """Computes a weight in its first evaluation and keeps it, as torch.nn.utils.parametrize.cached() does."""

    def __init__(self, *, before):
        super().__init__()
        self.raw = nn.Parameter(torch.full((3,), 0.3, dtype=torch.float64))
        self.weight = self.raw.exp() if before else None

    def forward(self, t, y):
        if self.weight is None:
            self.weight = self.raw.exp()
        return -self.weight * y


KEPT = r"^a gradient flows through a tensor that an evaluation of the vector field left behind: "


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
def test_a_weight_that_is_kept_from_the_first_evaluation_is_refused(gradient):
    solver = adaptive("dopri5", rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=KEPT):
        solve(gradient, solver, Kept(before=False), START, TS).ys.sum().backward()
    grads = []
    for how in (gradient, "direct"):
        field = Kept(before=True)
        solve(how, solver, field, START, TS).ys.sum().backward()
        grads.append(field.raw.grad)
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("with_loss", [False, True])
@pytest.mark.parametrize("of", ["slope", "state", "inside"])
@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
def test_a_penalty_that_is_gathered_on_the_side_is_refused(gradient, of, with_loss):
    w, gathered = torch.tensor([0.7, 0.3, 0.2], dtype=torch.float64, requires_grad=True), []

    def field(t, y):
        hidden = torch.sin(w * y)
        dy = hidden - y
        gathered.append({"slope": dy, "state": w * y, "inside": hidden}[of].pow(2).sum())
        return dy

    ys = solve(gradient, fixed(num_steps=2), field, START, TS).ys
    loss = sum(gathered) + (ys.sum() if with_loss else 0)
    freed = (
        r"|^Trying to backward through the graph a second time"  # torch's own, where the solve was pulled back first
    )
    with pytest.raises((ValueError, RuntimeError), match=KEPT + freed if with_loss else KEPT):
        torch.autograd.grad(loss, w)


def test_parameters_of_every_kind_have_the_gradient_of_direct_through_adjoint():
    """Complex, of another dtype, and empty."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.spectrum = nn.Parameter(torch.randn(2, dtype=torch.complex128) / 5)
            self.coarse = nn.Parameter(torch.tensor(0.5))
            self.none = nn.Parameter(torch.zeros(3, 0, dtype=torch.float64))

        def forward(self, t, y):
            return torch.fft.irfft(torch.fft.rfft(y) * self.spectrum, n=3) + self.coarse * y + y[:, :0] @ self.none.t()

    grads = []
    for gradient in ("adjoint", "direct"):
        field = Mixed()
        loss_of(solve(gradient, adaptive(rtol=1e-7, atol=1e-7), field, START, TS).ys).backward()
        grads.append({name: p.grad for name, p in field.named_parameters()})
        assert field.coarse.grad.dtype == torch.float32
    for name, grad in grads[1].items():
        torch.testing.assert_close(grads[0][name], grad, rtol=1e-5, atol=1e-6)


def test_a_sparse_tensor_is_refused_by_adjoint_at_the_start():
    values = torch.ones(3, dtype=torch.float64, requires_grad=True)
    matrix = torch.sparse_coo_tensor(torch.arange(3).repeat(2, 1), values, (3, 3), check_invariants=True)
    with pytest.raises(
        ValueError, match=r'^gradient="adjoint" has no gradient for the sparse tensor of shape \(3, 3\)'
    ):
        solve("adjoint", adaptive(), lambda t, y: torch.sparse.mm(matrix, y), START, TS)


def test_a_way_back_that_leaves_the_trajectory_is_told(caplog):
    """Where the solve contracts, the way back expands: the state that it arrives at is not the start."""

    def back(rate):
        y0 = START.clone().requires_grad_()
        solver = adaptive("dopri5", rtol=1e-4, atol=1e-4)
        solution = solve("adjoint", solver, lambda t, y: -rate * y.sin(), y0, times(0, 1))
        solution.ys[-1].sum().backward()
        return solution.backward_stats.drift

    backward_solve._warn_of_drift.cache_clear()
    assert 0 < back(1) < 1e-2
    assert not caplog.records
    assert back(14) > 0.1
    back(15)
    (record,) = caplog.records
    assert "ends more than 10 % away" in record.getMessage()


def test_a_stiff_way_back_is_told(caplog):
    def van_der_pol(t, y):
        return torch.stack([y[:, 1], 5 * (1 - y[:, 0] ** 2) * y[:, 1] - y[:, 0]], 1)

    y0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    backward_solve._warn_of_drift.cache_clear()
    solution = solve("adjoint", adaptive("dopri5", rtol=1e-3, atol=1e-3), van_der_pol, y0, times(0, 0.9))
    solution.ys[-1].sum().backward()
    assert solution.backward_stats.drift > 0.1
    assert len(caplog.records) == 1


def test_compiled_code_on_a_gpu_may_differ_by_the_rounding_of_factors_to_tf32():
    single, double = (torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64))
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert Difference(1e-6, 1.0, single).is_from_compiling(cpu)
    assert Difference(1e-3, 1.0, single).is_from_compiling(gpu)
    for difference, device in (((1e-3, single), cpu), ((1e-6, double), gpu), ((1e-2, single), gpu)):
        distance, precision = difference
        assert not Difference(distance, 1.0, precision).is_from_compiling(device)
