"""Every functional kernel gives the same bytes on every instruction set and number of threads.

Each case returns arrays from fixed inputs; it is run once on the best instruction set with one
thread, then everywhere else. Only the sign and payload of NaN are left out. "ragged" sizes
straddle vectors, tiles and blocks and carry special values; "large" ones have enough work that
several threads take part.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
from functional_cases import DTYPES, ISAS

THREADS = [1, 2, 3, 7]
ACTIVATIONS = {
    "relu": {},
    "leaky_relu": {"negative_slope": 0.3},
    "elu": {"alpha": 0.7},
    "selu": {},
    "gelu": {},
    "silu": {},
    "softplus": {"beta": 1.5},
    "tanh": {},
    "sigmoid": {},
}
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-40, 1e-310, 3e38, -3e38, 1e-20, 88.8, -103.0, 709.7]


class Draw:
    """Arrays in a fixed order from one seed."""

    def __init__(self, dtype, special=False):
        self.dtype, self.special, self.rng = dtype, special, np.random.default_rng(7)

    def __call__(self, *shape, scale=1.0, special=None):
        x = (self.rng.normal(size=shape) * scale).astype(self.dtype)
        if self.special if special is None else special:
            flat = x.reshape(-1)
            with np.errstate(over="ignore"):
                chosen = np.array(SPECIAL).astype(self.dtype)
            flat[:: max(1, flat.size // 40)] = np.resize(chosen, flat[:: max(1, flat.size // 40)].shape)
        return x

    def labels(self, rows, classes):
        return self.rng.integers(0, classes, rows)


# name -> (function of a Draw and a size, ragged sizes, large size)
CASES = {}


def case(ragged, large):
    def register(function):
        CASES[function.__name__] = (function, ragged, large)
        return function

    return register


@case(
    [(1, 1, 1), (7, 17, 65), (33, 31, 5), (129, 66, 257), (14, 33, 1025), (1, 300, 77), (65, 1, 300)],
    (301, 259, 263),
)
def matmul(draw, m, n, k):
    a, b = draw(m, k), draw(k, n)
    stacked = draw(3, m, k, special=False)
    return (
        F.matmul(a, b),
        F.matmul(b.T, a.T),
        F.matmul(b.T.copy(), a.T.copy()),
        F.matmul(stacked, b),
        F.matmul(a, b[:, 0]),
        F.matmul(a[0], b),
    )


@case([(1, 5, 7), (129, 17, 33), (300, 65, 10), (1030, 9, 15)], (2100, 129, 67))
def linear(draw, rows, inputs, outputs):
    x, w, b, dy = draw(rows, inputs), draw(outputs, inputs), draw(outputs), draw(rows, outputs)
    return F.linear(x, w, b), F.linear(x, w), *F.linear_backward(dy, x, w)


@case([(1, 3), (2, 17), (127, 33), (129, 65), (300, 1), (1000, 19)], (3001, 301))
def batch_norm(draw, rows, columns):
    x, dy, gamma, beta = draw(rows, columns), draw(rows, columns), draw(columns), draw(columns)
    far = draw(rows, columns, special=False) + np.asarray(1e7, draw.dtype)
    y, mean, rstd = F.batch_norm(x, gamma, beta)
    other = F.batch_norm(far)
    return (
        y,
        mean,
        rstd,
        *other,
        *F.batch_norm_backward(dy, x, mean, rstd, gamma),
        *F.batch_norm_backward(dy, far, *other[1:]),
        F.batch_norm_inference(x, mean, np.abs(gamma), gamma, beta),
        *F.batch_norm(np.ascontiguousarray(x.T), gamma, beta, axis=0),
    )


@case([(1, 3), (5, 17), (129, 65), (3, 4097), (2, 9000)], (3001, 301))
def layer_norm(draw, rows, columns):
    x, dy, gamma, beta = draw(rows, columns), draw(rows, columns), draw(columns), draw(columns)
    y, mean, rstd = F.layer_norm(x, gamma, beta)
    return y, mean, rstd, *F.layer_norm_backward(dy, x, mean, rstd, gamma)


@case([(1,), (17,), (129,), (1000,)], (300_001,))
def activations(draw, n):
    x, dy = draw(n, scale=4), draw(n)
    results = [F.gelu(x, approximate="tanh"), F.activation_backward("gelu", dy, x, approximate="tanh")]
    for name, parameters in ACTIVATIONS.items():
        results += [getattr(F, name)(x, **parameters), F.activation_backward(name, dy, x, **parameters)]
    return results


@case([(1, 1), (5, 17), (129, 10), (3, 4097)], (3001, 101))
def softmax(draw, rows, columns):
    x = draw(rows, columns, scale=5)
    return F.softmax(x), F.log_softmax(x), F.softmax(x, axis=0), F.log_softmax(x, axis=0)


@case([(1, 2), (5, 17), (129, 10), (3, 4097)], (6001, 51))
def losses(draw, rows, columns):
    x, target = draw(rows, columns, scale=3), draw(rows, columns)
    labels, weight, soft = (
        draw.labels(rows, columns),
        np.abs(draw(columns, special=False)),
        np.abs(draw(rows, columns)),
    )
    results = []
    for reduction in ("mean", "sum", "none"):
        for name in ("mse_loss", "l1_loss", "huber_loss"):
            results += getattr(F, name)(x, target, reduction=reduction)
        results += F.binary_cross_entropy_with_logits(x, soft, pos_weight=weight, reduction=reduction)
        results += F.cross_entropy(x, labels, reduction=reduction)
        for t in (labels, soft):
            results += F.cross_entropy(x, t, weight=weight, label_smoothing=0.1, reduction=reduction)
    return results


@case([(1,), (17,), (129,), (5000,)], (300_001,))
def updates(draw, n):
    g = draw(n)
    p, v, m, s = (draw(n, special=False) for _ in range(4))
    q, s = p.copy(), s * s
    for first in (True, False, False):
        F.sgd_update(p, g, v, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=1e-3, first=first)
    F.sgd_update(p, g, v, lr=0.1, momentum=0.9, nesterov=True)
    F.sgd_update(p, g, lr=0.01)
    for step in (1, 2):
        F.adam_update(q, g, m, s, step=step, lr=0.1, weight_decay=0.01, decoupled=step == 1)
    return p, v, q, m, s


@case([(1,), (17,), (4097,)], (300_001,))
def clipping(draw, n):
    grads = [draw(n, special=False), draw(33, special=False), draw(n, 2, special=False)]
    return [F.clip_grad_norm(grads, 0.3), *grads]


def run(name, dtype, size, special):
    function, _, _ = CASES[name]
    with np.errstate(all="ignore"):
        results = function(Draw(dtype, special), *size)
    arrays = [np.array(r, copy=True) for r in results]
    for a in arrays:
        a[np.isnan(a)] = np.nan  # one sign and payload
    return arrays


def assert_same(name, dtype, size, special, combinations):
    with gv.isa(ISAS[0]), gv.threads(1):
        reference = run(name, dtype, size, special)
    for isa, threads in combinations:
        with gv.isa(isa), gv.threads(threads):
            results = run(name, dtype, size, special)
        for i, (got, expected) in enumerate(zip(results, reference, strict=True)):
            if got.tobytes() != expected.tobytes():
                different = got.view(np.uint8) != expected.view(np.uint8) if got.ndim else np.array([True])
                raise AssertionError(
                    f"{name} {size} {np.dtype(dtype)}, result {i}: {isa} with {threads} threads differs from "
                    f"{ISAS[0]} with 1 in {np.count_nonzero(different)} bytes"
                )


kinds = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])
names = pytest.mark.parametrize("name", CASES)


@kinds
@names
@pytest.mark.parametrize("special", [False, True], ids=["", "special"])
def test_instruction_sets(name, dtype, special):
    for size in CASES[name][1]:
        assert_same(name, dtype, size, special, [(isa, 1) for isa in ISAS[1:]])


@kinds
@names
def test_thread_counts(name, dtype):
    for size in [*CASES[name][1], CASES[name][2]]:
        assert_same(name, dtype, size, False, [(ISAS[0], n) for n in THREADS])


@kinds
@names
def test_instruction_sets_and_threads(name, dtype):
    assert_same(name, dtype, CASES[name][2], False, [(isa, n) for isa in ISAS[1:] for n in (1, 3)])


def batch_norm_both(x, dy, gamma):
    y, mean, rstd = F.batch_norm(x, gamma, gamma)
    return [y, mean, rstd, *F.batch_norm_backward(dy, x, mean, rstd, gamma)]


@kinds
@pytest.mark.parametrize(
    "rows, columns",
    [(128, 700), (129, 33), (8_001, 1), (8_001, 5), (8_001, 31), (5_121, 257), (1_290, 4_099)],
)
def test_batch_norm_by_rows_and_by_columns(dtype, rows, columns):
    """A small matrix is dealt by columns, a large one by blocks of rows, and operands that lie apart take
    another way through memory: no result shows it, so a column alone gives what it gives among others."""
    draw = Draw(dtype)
    operands = draw(rows, columns), draw(rows, columns), draw(columns)
    apart = *(np.concatenate([v, v], axis=1)[:, :columns] for v in operands[:2]), operands[2]
    with gv.threads(1):
        reference = batch_norm_both(*operands)
        for j in {0, columns // 2, columns - 1}:
            alone = batch_norm_both(*(v[..., j : j + 1].copy() for v in operands))
            for got, expected in zip(alone, reference, strict=True):
                assert got.tobytes() == expected[..., j : j + 1].tobytes()
    for n in THREADS:
        with gv.threads(n):
            for same in (operands, apart):
                for got, expected in zip(batch_norm_both(*same), reference, strict=True):
                    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("offset", [0, 1, 4])
def test_results_larger_than_the_caches(isa, offset):
    """They are written past the caches, from the boundary of a vector on. A result in place is not, nor is
    that of a part, so both have to agree."""
    rows, columns = 270_003, 33  # more than 2^25 bytes
    draw = Draw(np.float32)
    flat = draw(rows * columns + offset, special=True)
    x, gamma = flat[offset:].reshape(rows, columns), draw(columns, special=False)
    dy, out = x[::-1].copy(), np.empty_like(flat)[offset:].reshape(rows, columns)
    with gv.isa(isa), gv.threads(2), np.errstate(all="ignore"):
        in_place = x.copy()
        for same in (F.relu(in_place, out=in_place), F.relu(x, out=out)):
            np.testing.assert_array_equal(same[-1000:], F.relu(x[-1000:]))
            np.testing.assert_array_equal(same[:1000], F.relu(x[:1000]))
        slope = F.activation_backward("leaky_relu", dy, x)
        np.testing.assert_array_equal(slope[-999:], F.activation_backward("leaky_relu", dy[-999:], x[-999:]))
        x = np.nan_to_num(x, nan=1, posinf=1, neginf=1).clip(-9, 9)
        y, mean, rstd = F.batch_norm(x, gamma, out=out)
        again = x.copy()
        np.testing.assert_array_equal(y, F.batch_norm(again, gamma, out=again)[0])
        dx = F.batch_norm_backward(dy.clip(-9, 9), x, mean, rstd, gamma)[0]
        apart = np.concatenate([x, x], axis=1)[:, :columns]
        np.testing.assert_array_equal(dx, F.batch_norm_backward(dy.clip(-9, 9), apart, mean, rstd, gamma)[0])


def test_large_results_do_not_share_memory():
    """The memory of a large result that was let go is used again, but not while anyone can see it."""
    x = np.ones((3_000_000, 3), np.float32)
    first = F.relu(x)
    view = first[10:20]
    del first
    others = [F.relu(-x) for _ in range(4)]
    assert np.all(view == 1)
    assert not any(np.shares_memory(a, b) for i, a in enumerate(others) for b in [view, *others[:i]])
    del others
    assert np.all(F.relu(x) == 1) and np.all(view == 1)


@names
def test_twice_the_same(name):
    a, b = (run(name, np.float32, CASES[name][2], False) for _ in range(2))
    assert [x.tobytes() for x in a] == [x.tobytes() for x in b]


def test_callers_in_several_threads():
    """The interpreter lock is released inside a kernel; calls do not share scratch memory."""
    reference = [x.tobytes() for x in run("linear", np.float32, (700, 301, 257), False)]
    for n in (1, 3):
        with gv.threads(n), ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(run, "linear", np.float32, (700, 301, 257), False) for _ in range(16)]:
                assert [x.tobytes() for x in future.result()] == reference


def test_forced_settings_hold():
    for isa in ISAS:
        for n in THREADS:
            with gv.isa(isa), gv.threads(n):
                assert gv.get_num_threads() == n
    assert set(ISAS) <= {"scalar", "avx2", "avx512"} and ISAS[-1] == "scalar"
