"""The training step between calls: other batches, views, frozen parameters, several inputs, threads."""

import sys
import threading

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
from gvcore import nn
from train_step_cases import CLASSES, OPTIMISERS, SGD, assert_same, batch, make_net, state

X, Y = batch()

# ---- batches, views, frozen parameters ----------------------------------------------------------


def test_other_batch_sizes_do_not_trace_again():
    traces = []

    class Counting(nn.Module):
        def __init__(self):
            self.body = make_net()

        def forward(self, x):
            traces.append(x.shape)
            return self.body(x)

    step = gv.TrainStep(Counting(), nn.CrossEntropyLoss(), SGD)
    step(*batch(rows=64))
    first = len(traces)
    for rows in (64, 17, 300, 2, 64):
        step(*batch(rows=rows))
    assert len(traces) == first >= 1


def test_smaller_last_batch_gives_what_it_gives_alone():
    net = make_net(dropout=False)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)
    for rows in (200, 33):
        step(*batch(rows=rows))
    twin = make_net(dropout=False)
    twin.load_state_dict(net.state_dict())
    x, y = batch(rows=7)
    small = gv.TrainStep(twin, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1))
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1))
    saved = net.state_dict()
    step(*batch(rows=200))
    net.load_state_dict(saved)
    assert step(x, y) == small(x, y)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name])


@pytest.mark.parametrize(
    "convert",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
    ],
    ids=["Fortran order", "every second column", "reversed", "float64", "big-endian", "list"],
)
def test_memory_and_dtype_of_a_batch_do_not_matter(convert):
    nets = [make_net() for _ in range(2)]
    steps = [gv.TrainStep(net, nn.CrossEntropyLoss(), SGD, seed=1) for net in nets]
    x, y = batch()
    kept = x.copy()
    assert steps[0](x, y) == steps[1](convert(x), y)
    assert_same(*(state(net, step) for net, step in zip(nets, steps, strict=True)))
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64, bool])
def test_labels_of_any_integer_dtype(dtype):
    x, y = batch()
    y = y % 2
    losses = {
        gv.TrainStep(make_net(), nn.CrossEntropyLoss(), SGD, seed=1)(x, t) for t in (y, y.astype(dtype))
    }
    assert len(losses) == 1


def test_read_only_memory_map(tmp_path):
    x, y = batch()
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape)
    losses = {gv.TrainStep(make_net(), nn.CrossEntropyLoss(), SGD, seed=1)(v, y) for v in (x, mapped)}
    assert len(losses) == 1


@pytest.mark.parametrize("optimizer", OPTIMISERS)
def test_frozen_between_steps(optimizer):
    net = make_net(dropout=False)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), OPTIMISERS[optimizer], seed=1)
    step(*batch())
    before, mean = state(net, step), net.buffers()["1.running_mean"].copy()
    net.freeze("0.*").freeze("1.weight")
    frozen = ("0.weight", "0.bias", "1.weight")
    held = {f"{kind}{name}" for kind in ("", "velocity.", "exp_avg.", "exp_avg_sq.") for name in frozen}
    for i in range(3):
        step(*batch(seed=i))
    after = state(net, step)
    same = {name for name in before if before[name] == after.get(name)}
    assert held & set(before) <= same
    assert not any(name in same for name in net.parameters() if name not in frozen)
    assert (net.buffers()["1.running_mean"] != mean).all()
    net.unfreeze()
    step(*batch())
    last = state(net, step)
    assert not any(last[name] == after[name] for name in net.parameters())


def test_frozen_everything_but_one_trains_that_alone():
    net = make_net(dropout=False)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)
    net.freeze().unfreeze("1.bias")
    before = state(net, step)
    step(X, Y)
    after = state(net, step)
    assert [name for name in net.parameters() if before[name] != after[name]] == ["1.bias"]


def test_what_is_written_to_views_between_steps_is_seen():
    net = make_net(dropout=False)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1))
    parameters, buffers = net.parameters(), net.buffers()
    random = np.random.default_rng(3)
    for i in range(4):
        for array in (*parameters.values(), *buffers.values()):
            array += random.uniform(0.0, 0.1, array.shape).astype(array.dtype)
        fresh = make_net(dropout=False)
        fresh.load_state_dict(net.state_dict())
        other = gv.TrainStep(fresh, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1))
        np.testing.assert_array_equal(net(X), fresh(X))
        assert step(*batch(seed=i)) == other(*batch(seed=i))
        for name, array in net.state_dict().items():
            np.testing.assert_array_equal(array, fresh.state_dict()[name], err_msg=name)
        for name, array in net.parameters().items():
            assert np.shares_memory(array, parameters[name])
        np.testing.assert_array_equal(net(X), fresh(X))


def test_state_is_a_view_that_may_be_written():
    net = make_net(dropout=False)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)
    step(X, Y)
    for velocity in step.state["velocity"].values():
        velocity[...] = 0
    fresh = make_net(dropout=False)
    fresh.load_state_dict(net.state_dict())
    before = {name: p.copy() for name, p in net.parameters().items()}
    step(X, Y)
    _, gradients = gv.value_and_grad(fresh, nn.CrossEntropyLoss())(X, Y)
    for name, p in fresh.parameters().items():
        np.testing.assert_allclose(
            net.parameters()[name] - before[name], -0.1 * (gradients[name] + 0.01 * p), rtol=1e-3, atol=1e-6
        )


def test_counts_that_are_set_back_begin_anew():
    """With dampening the first update of a velocity is unlike those that follow."""
    net = make_net(dropout=False)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1, momentum=0.9, dampening=0.5))
    start = net.state_dict()
    first = [step(X, Y) for _ in range(3)]
    net.load_state_dict(start)
    for velocity in step.state["velocity"].values():
        velocity[...] = 0
    step.state["updates"][...] = 0
    assert [step(X, Y) for _ in range(3)] == first


def test_an_accumulated_gradient_that_is_not_finite_is_dropped():
    step, twin = (
        gv.TrainStep(nn.Linear(5, 1, init="zeros"), nn.L1Loss("sum"), gv.optim.SGD(lr=0.1), clip_norm=1.0)
        for _ in "ab"
    )
    net, x, y = step.net, X, np.ones((len(X), 1), np.float32)
    step(np.full_like(x, 3e38), y, accumulate=True)
    before = state(net, step)
    with pytest.raises(FloatingPointError, match="gradient norm"):
        step(x, y)
    assert_same(before, state(net, step))
    assert step(x, y) == twin(x, y)
    for name, array in net.parameters().items():
        np.testing.assert_array_equal(array, twin.net.parameters()[name])


def test_accumulated_gradients_outlive_a_batch_whose_loss_is_not_finite():
    """That batch has added nothing: training goes on without it."""
    steps = [gv.TrainStep(make_net(dropout=False), nn.CrossEntropyLoss(), SGD, clip_norm=1.0) for _ in "ab"]
    for step in steps:
        step(X, Y, accumulate=True)
    with pytest.raises(FloatingPointError, match="finite loss"):
        steps[0](X * np.float32(np.nan), Y)
    assert steps[0](X, Y) == steps[1](X, Y)
    assert steps[0].gradient_norm == steps[1].gradient_norm


@pytest.mark.parametrize("scale", [1e20, 1e-22])
def test_clipping_where_squares_leave_the_range_of_floats(scale):
    """As `clip_grad_norm`: the norm is a float though the squares that make it are not."""
    net = nn.Linear(3, 2, bias=False, init="zeros")
    step = gv.TrainStep(net, nn.L1Loss("sum"), gv.optim.SGD(lr=1.0), clip_norm=1.0)
    step(np.eye(3, dtype=np.float32) * np.float32(scale), np.ones((3, 2), np.float32))
    assert step.gradient_norm == pytest.approx(scale * np.sqrt(6), rel=1e-6, abs=0)
    if scale > 1:
        np.testing.assert_allclose(net.weight.data, 1 / np.sqrt(6), rtol=1e-5)


@pytest.mark.parametrize("width, page", [(5, 64), (1000, 2**21)])
def test_large_parameters_and_their_state_begin_on_huge_pages(width, page):
    net = nn.Sequential(nn.Linear(width, width), nn.BatchNorm(width), nn.Linear(width, CLASSES))
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD)
    step(np.ones((4, width), np.float32), np.zeros(4, np.int64))
    for arrays in (net.parameters(), step.state["velocity"]):
        places = [a.ctypes.data for a in arrays.values()]
        assert all(place % 64 == 0 for place in places)
        assert min(places) % page == 0


def test_two_steps_of_one_net_take_turns():
    net, twin = make_net(dropout=False), make_net(dropout=False)
    one, two = (
        gv.TrainStep(net, loss, gv.optim.SGD(lr=0.1)) for loss in (nn.CrossEntropyLoss(), F.cross_entropy)
    )
    only = gv.TrainStep(twin, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1))
    for i in range(4):
        (one, two)[i % 2](*batch(seed=i))
        only(*batch(seed=i))
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[name])


class TwoInputs(nn.Module):
    def __init__(self):
        self.left, self.right = nn.Linear(3, 4, seed=0), nn.Linear(2, 4, seed=1)
        self.last = nn.Linear(4, CLASSES, seed=2)

    def forward(self, a, b):
        return self.last(F.tanh(self.left(a)) * self.right(b))


class OneInput(TwoInputs):
    """The same, with the second input's share of the product switched by a matrix of zeros and ones."""

    def __init__(self):
        super().__init__()
        self.pick_left = nn.Parameter(np.eye(5, 3, dtype=np.float32), requires_grad=False)
        self.pick_right = nn.Parameter(np.eye(5, 2, -3, dtype=np.float32), requires_grad=False)

    def forward(self, x):
        return super().forward(x @ self.pick_left, x @ self.pick_right)


def test_several_inputs():
    x, y = batch()
    two, one = TwoInputs(), OneInput()
    steps = [gv.TrainStep(net, nn.CrossEntropyLoss(), SGD) for net in (two, one)]
    for _ in range(3):
        assert steps[0]((x[:, :3], x[:, 3:]), y) == steps[1](x, y)
    for name, p in two.parameters().items():
        np.testing.assert_array_equal(p, one.parameters()[name])
    np.testing.assert_array_equal(two(x[:, :3], x[:, 3:]), one(x))
    for parts in ((x[:, :3], x[:-1, 3:]), (x[:, 3:], x[:, :3])):
        with pytest.raises(ValueError):
            steps[0](parts, y)
    with pytest.raises(TypeError):
        steps[0](x[:, :3], y)


def test_dropout_depends_on_seed_and_step():
    def losses(seed, n=4):
        step = gv.TrainStep(make_net(norm=False), nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.0), seed=seed)
        return [step(X, Y) for _ in range(n)]

    assert losses(1) == losses(1)
    assert losses(1) == losses(np.int64(1))
    assert len(set(losses(1))) == 4
    assert not set(losses(1)) & set(losses(2))
    assert losses(None) != losses(None)


# ---- threads ------------------------------------------------------------------------------------


def together(*functions):
    """Run the functions at once, raise what one of them raised."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:  # reported below, in the thread that can fail the test
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(f,)) for f in functions]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


def test_two_threads_of_inference_and_one_of_steps():
    net, alone = make_net(), make_net()
    step, other = (gv.TrainStep(n, nn.CrossEntropyLoss(), SGD, seed=1) for n in (net, alone))
    finite = []

    def infer(rows):
        x, _ = batch(rows=rows)
        for _ in range(60):
            finite.append(bool(np.isfinite(net(x)).all()))

    def train():
        for i in range(60):
            step(*batch(rows=40 + i % 3, seed=i))

    together(lambda: infer(50), lambda: infer(7), train)
    assert len(finite) == 120 and all(finite)
    for i in range(60):
        other(*batch(rows=40 + i % 3, seed=i))
    assert_same(state(alone, other), state(net, step))


def test_inference_beside_steps_that_change_nothing():
    net = make_net(norm=False)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.0))
    inputs = [batch(rows=rows)[0] for rows in (5, 130)]
    expected = [net(x) for x in inputs]
    wrong = []

    def infer(i):
        for _ in range(60):
            if not np.array_equal(net(inputs[i]), expected[i]):
                wrong.append(i)

    together(lambda: infer(0), lambda: infer(1), lambda: [step(X, Y) for _ in range(60)])
    assert not wrong


def test_one_step_from_several_threads():
    net = make_net(norm=False, dropout=False, dtype=np.float64)
    step = gv.TrainStep(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.01))
    together(*[lambda: [step(X, Y) for _ in range(25)]] * 3)
    assert step.updates == 75
    alone = make_net(norm=False, dropout=False, dtype=np.float64)
    other = gv.TrainStep(alone, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.01))
    for _ in range(75):
        other(X, Y)
    assert_same(state(alone, other), state(net, step))


def test_steps_of_several_nets_in_several_threads():
    def train(net):
        step = gv.TrainStep(net, nn.CrossEntropyLoss(), SGD, seed=1)
        for i in range(25):
            step(*batch(rows=30, seed=i))

    nets = [make_net() for _ in range(4)]
    together(*[lambda net=net: train(net) for net in nets[:3]])
    train(nets[3])
    for net in nets[:3]:
        for name, array in nets[3].state_dict().items():
            np.testing.assert_array_equal(net.state_dict()[name], array)
