"""matmul, linear and linear_backward against the oracle.

Bound: an element is one chain of k fused multiply-adds in any order of association, so
|error| <= k·u/(1 - k·u) · Σ|a||b| (Higham 2002, 3.5), plus one rounding for each addition after it;
products below the smallest normal number may add k of the smallest subnormal numbers.
"""

import numpy as np
import pytest

import gvcore as gv
import gvcore.functional as F
import oracles as o
from functional_cases import (
    SIZES,
    assert_within,
    bad_outs,
    check_out,
    each_dtype,
    each_wrong_kind,
    layouts,
    memory_map,
    normal,
    on_every_isa,
    rejected,
    tiny,
    wrong_kind,
)
from gvcore import _core

isa = on_every_isa

DEPTHS = [255, 256, 257, 1023, 1024, 1025]


def product_bound(a, b, dtype, extra=0):
    """For a (…, m, k) @ b (…, k, n) in wide arithmetic, and `extra` roundings after the chain."""
    k = a.shape[-1]
    return o.gamma_factor(k + extra, dtype) * np.matmul(np.abs(a), np.abs(b)) + k * tiny(dtype) * 1e-6


def check_product(a, b, **options):
    wide_a, wide_b = o.wide(a), o.wide(b)
    bound = product_bound(wide_a, wide_b, a.dtype)
    assert_within(F.matmul(a, b, **options), np.matmul(wide_a, wide_b), bound, dtype=a.dtype)


# --- matmul ------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("axis", ["m", "n", "k"])
def test_matmul_sizes(isa, dtype, axis):
    for size in SIZES + (DEPTHS if axis == "k" else []):
        m, n, k = {"m": (size, 17, 9), "n": (7, size, 9), "k": (15, 33, size)}[axis]
        check_product(normal(m, k, dtype=dtype), normal(k, n, dtype=dtype, seed=1))


@each_dtype
def test_matmul_sizes_together(isa, dtype):
    rng = np.random.default_rng(5)
    for _ in range(25):
        m, n, k = rng.choice(SIZES, 3)
        check_product(normal(m, k, dtype=dtype), normal(k, n, dtype=dtype, seed=1))
    for m, n, k in [(129, 127, 257), (1, 257, 129), (257, 1, 65), (65, 513, 17)]:
        check_product(normal(m, k, dtype=dtype), normal(k, n, dtype=dtype, seed=1))


# Around the blocks of csrc/ops/gemm_blocked.h: 12 rows of a product of k <= 32, 70 rows of doubles or 140 of
# floats, fewer where they would fill more than a sixth of L2, 256, 512 or 1,024 of k, 64 panels of 128
# bytes, 32 where more than 48 rows are carried from one block of k to the next, and 1,024 of k between two
# visits to the result; from 8 panels on an operand that lies by columns is packed, with a large L1 from 16
# on one whose rows are a multiple of 4 KiB apart, with a small one its tiles have 8 rows; B is packed from
# 49, 97, 257 or 513 rows of A on by its size and how it lies, for a narrow tile from 13, 21 or 41 on where
# its rows are a multiple of 4 KiB or 512 bytes apart.
BLOCKS = [
    (12, 65, 32),
    (13, 300, 31),
    (25, 40, 33),
    (139, 257, 65),
    (140, 127, 257),
    (141, 258, 513),
    (281, 129, 64),
    (49, 256, 511),
    (20, 1025, 70),
    (141, 2049, 17),
    (17, 2081, 66),
    (33, 520, 1024),
    (48, 1030, 600),
    (60, 1030, 300),
    (150, 40, 1100),
    (71, 520, 2060),
    (100, 512, 300),
    (150, 528, 513),
    (90, 300, 1024),
    (12, 80, 1024),
    (29, 80, 1024),
    (13, 1024, 70),
    (21, 512, 70),
    (41, 256, 40),
    (513, 40, 60),
]


# Few rows or columns: dot products up to 4 rows (strips of 8, 16 or 32 rows of B, as many of its columns at
# a time), a result that is found transposed while its short side is at most 32 doubles or 64 floats, pieces
# of 512, and a B of a megabyte that passes by blocks of 32 rows or more, one of four that is asked for
# early. Rows that are a multiple of 2 KiB apart drive each other out of a cache. Up to 3 rows walk along
# those of a B of 16 KB, 256 KB, 1 MB, 16 KB of the result at a time, on whole
# lines where all rows of B lie alike.
NARROW = [
    (1, 1, 15),
    (1, 31, 16),
    (2, 33, 17),
    (3, 15, 31),
    (4, 47, 32),
    (5, 49, 33),
    (2, 64, 1025),
    (1, 1100, 65),
    (4, 70, 2049),
    (513, 1, 40),
    (1025, 4, 37),
    (100, 7, 66),
    (130, 33, 64),
    (129, 65, 70),
    (7, 1100, 300),
    (48, 1030, 290),
    (49, 1030, 290),
    (305, 5, 32),
    (600, 5, 31),
    (4096, 5, 32),
    (600, 9, 32),
    (2, 40, 1024),
    (1, 33, 512),
    (7, 1100, 1100),
    (1, 65, 70),
    (1, 4111, 9),
    (2, 300, 230),
    (3, 1400, 190),
    (1100, 1, 77),
    (1, 4112, 9),
    (3, 1376, 193),
]


@each_dtype
@pytest.mark.parametrize("m, n, k", BLOCKS + NARROW, ids=str)
def test_matmul_around_the_edges_of_blocks(isa, dtype, m, n, k):
    a, b = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype, seed=1)
    check_product(a, b)
    plain = F.matmul(a, b)
    by_columns = [np.asfortranarray(x) for x in (a, b)]
    straddling = [np.zeros(x.size + 1, dtype)[1:].reshape(x.shape) for x in (a, b)]
    on_lines = [_core.zeros(x.size, np.dtype(dtype)).reshape(x.shape) for x in (a, b)]
    for copies in (straddling, on_lines):
        for copy, x in zip(copies, (a, b), strict=True):
            copy[...] = x
    for left in (a, by_columns[0], straddling[0], on_lines[0]):
        for right in (b, by_columns[1], straddling[1], on_lines[1]):
            np.testing.assert_array_equal(F.matmul(left, right), plain)


@each_dtype
def test_matmul_layouts(isa, dtype):
    a, b = normal(19, 35, dtype=dtype), normal(35, 21, dtype=dtype, seed=1)
    plain = F.matmul(a, b)
    for what, view in layouts(a):
        np.testing.assert_array_equal(F.matmul(view, b), plain, err_msg=f"a: {what}")
    for what, view in layouts(b):
        np.testing.assert_array_equal(F.matmul(a, view), plain, err_msg=f"b: {what}")
    np.testing.assert_array_equal(F.matmul(a.T.copy().T, b.T.copy().T), plain)


@each_dtype
def test_matmul_broadcast_views(isa, dtype):
    row, column = normal(1, 9, dtype=dtype), normal(9, 1, dtype=dtype, seed=1)
    check_product(np.broadcast_to(row, (13, 9)), np.broadcast_to(column, (9, 17)))
    one = np.full((1, 1), 2, dtype)
    np.testing.assert_array_equal(
        F.matmul(np.broadcast_to(one, (5, 3)), np.broadcast_to(one, (3, 4))), np.full((5, 4), 12)
    )


STACKS = [
    ((4,), (4,)),
    ((4,), (4, 3)),
    ((5, 4), (4,)),
    ((2, 5, 4), (4,)),
    ((4,), (2, 4, 3)),
    ((2, 5, 4), (4, 3)),
    ((5, 4), (2, 4, 3)),
    ((2, 5, 4), (2, 4, 3)),
    ((3, 1, 5, 4), (2, 4, 3)),
    ((2, 1, 5, 4), (1, 3, 4, 6)),
    ((0, 5, 4), (4, 3)),
    ((2, 0, 4), (4, 3)),
    ((2, 5, 0), (0, 3)),
    ((0,), (0,)),
    ((5, 0), (0,)),
    ((1, 1), (1, 1)),
]


@each_dtype
@pytest.mark.parametrize("left, right", STACKS, ids=str)
def test_matmul_stacks(isa, dtype, left, right):
    a, b = normal(*left, dtype=dtype), normal(*right, dtype=dtype, seed=1)
    expected = np.matmul(o.wide(a), o.wide(b))
    bound = o.gamma_factor(left[-1], dtype) * np.matmul(np.abs(o.wide(a)), np.abs(o.wide(b)))
    result = F.matmul(a, b)
    assert_within(result, expected, bound, dtype=dtype)
    if result.ndim:
        check_out(lambda out: F.matmul(a, b, out=out), result)


def test_matmul_stack_of_strided_matrices():
    a, b = normal(6, 5, 8), normal(8, 6, 7, seed=1)
    check_product(a[::2, :, ::-1], np.swapaxes(b, 0, 1)[::-2])


def test_matmul_special_values(isa):
    a = np.array([[np.inf, 1.0], [np.nan, 1.0], [0.0, 1.0], [1e308, 1e308]])
    b = np.array([[1.0, 0.0], [1.0, 2.0]])
    with np.errstate(invalid="ignore", over="ignore"):
        expected = np.matmul(a, b)
    np.testing.assert_array_equal(F.matmul(a, b), expected)
    small = np.full((3, 5), 1e-30, np.float32)  # products are subnormal or vanish, never trap
    np.testing.assert_allclose(F.matmul(small, small.T * np.float32(1e-10)), 5e-70, atol=1e-38)


def test_matmul_zero_depth_does_not_read_out(isa):
    out = np.full((3, 4), np.nan)
    F.matmul(np.ones((3, 0)), np.ones((0, 4)), out=out)
    np.testing.assert_array_equal(out, np.zeros((3, 4)))


def test_matmul_memory_map(tmp_path):
    a = memory_map(tmp_path / "a", normal(13, 7, dtype=np.float32))
    b = memory_map(tmp_path / "b", normal(7, 11, dtype=np.float32, seed=1))
    np.testing.assert_array_equal(F.matmul(a, b), F.matmul(np.array(a), np.array(b)))
    frozen = memory_map(tmp_path / "out", np.zeros((13, 11), np.float32))
    with rejected("matmul", ValueError, frozen):
        F.matmul(a, b, out=frozen)


def test_matmul_big_endian_is_right_or_refused():
    a, b = normal(3, 4), normal(4, 5, seed=1)
    try:
        result = F.matmul(a.astype(">f8"), b)
    except TypeError as error:
        assert "[matmul]" in str(error)
    else:
        np.testing.assert_array_equal(result, F.matmul(a, b))


@each_dtype
def test_matmul_refuses_shapes(dtype):
    def ones(*shape):
        return np.ones(shape, dtype)

    for a, b in [
        ((), (3,)),
        ((3,), ()),
        ((3,), (4,)),
        ((2, 3), (4, 2)),
        ((2, 3), (2,)),
        ((3,), (2, 3)),
        ((2, 4, 3), (3, 3, 2)),
        ((2, 3), (2, 3)),
        ((1, 0), (1, 1)),
    ]:
        with rejected("matmul", ValueError):
            F.matmul(ones(*a), ones(*b))
    with pytest.raises(ValueError, match=r"\(?2, 3\)?.*4, 2"):
        F.matmul(ones(2, 3), ones(4, 2))


@each_wrong_kind
def test_matmul_refuses_kinds(kind):
    good, bad = np.ones((3, 3)), wrong_kind(kind, 3, 3)
    out = np.zeros((3, 3))
    for a, b in [(good, bad), (bad, good), (bad, bad)]:
        with rejected("matmul", TypeError, out):
            F.matmul(a, b, out=out)


def test_matmul_refuses_mixed_precision():
    a, b, out = np.ones((2, 2), np.float32), np.ones((2, 2)), np.zeros((2, 2))
    for left, right in [(a, b), (b, a)]:
        with rejected("matmul", TypeError, out):
            F.matmul(left, right, out=out)
    for bad in (None, "text", object()):
        with rejected("matmul", TypeError, out):
            F.matmul(bad, b, out=out)


@each_dtype
def test_matmul_refuses_outs(dtype):
    a, b = normal(4, 3, dtype=dtype), normal(3, 5, dtype=dtype)
    for _, error, out in bad_outs((4, 5), dtype):
        with rejected("matmul", error, out, a, b):
            F.matmul(a, b, out=out)
    with rejected("matmul", TypeError):
        F.matmul(a, b, out=[[0.0] * 5] * 4)


def test_outs_whose_elements_share_memory_are_refused():
    memory = np.zeros(100, np.float32)
    a, b = normal(3, 2, 2, dtype=np.float32), normal(2, 2, dtype=np.float32)
    for strides in [(4, 8, 4), (0, 8, 4), (16, 4, 4)]:
        out = np.lib.stride_tricks.as_strided(memory, (3, 2, 2), strides)
        with rejected("matmul", ValueError, memory):
            F.matmul(a, b, out=out)
    with rejected("relu", ValueError, memory):
        F.relu(normal(4, 4, dtype=np.float32), out=np.lib.stride_tricks.as_strided(memory, (4, 4), (0, 4)))
    spread = np.lib.stride_tricks.as_strided(memory, (3, 2, 2), (8, 32, 4))  # fits between its own rows
    np.testing.assert_array_equal(F.matmul(a, b, out=spread), F.matmul(a, b))


def test_out_beside_the_operand_in_one_array(isa):
    """Different columns of one matrix share no memory, though they lie between each other."""
    both = normal(5, 10, dtype=np.float32)
    weight = normal(4, 6, dtype=np.float32)
    expected = F.linear(both[:, 4:].copy(), weight)
    F.linear(both[:, 4:], weight, out=both[:, :4])
    np.testing.assert_array_equal(both[:, :4], expected)
    with rejected("linear", ValueError, both):
        F.linear(both[:, 3:9], weight, out=both[:, :4])


@each_dtype
def test_matmul_refuses_overlap(dtype):
    x = normal(4, 4, dtype=dtype)
    b = normal(4, 4, dtype=dtype, seed=1)
    for out in (x, x.T, x[::-1]):
        with rejected("matmul", ValueError, x, b):
            F.matmul(x, b, out=out)
        with rejected("matmul", ValueError, x, b):
            F.matmul(b, x, out=out)
    pool = normal(40, dtype=dtype)
    with rejected("matmul", ValueError, pool):
        F.matmul(pool[:16].reshape(4, 4), b, out=pool[15:31].reshape(4, 4))
    beside = pool[16:32].reshape(4, 4)
    np.testing.assert_array_equal(F.matmul(pool[:16].reshape(4, 4), b, out=beside), beside)
    interleaved = normal(4, 8, dtype=dtype)  # neighbours that do not share an element
    a, out = interleaved[:, :4], interleaved[:, 4:]
    expected = F.matmul(a.copy(), b)
    try:
        F.matmul(a, b, out=out)
    except ValueError as error:
        assert "[matmul]" in str(error)
    else:
        np.testing.assert_array_equal(out, expected)


# --- linear ------------------------------------------------------------------------------------


@each_dtype
@pytest.mark.parametrize("inputs, outputs", [(9, 33), (33, 6), (65, 1), (1, 5), (0, 3), (4, 0)])
@pytest.mark.parametrize("leading", [(), (0,), (1,), (17,), (129,), (3, 5), (2, 0, 3), (2, 3, 4)], ids=str)
def test_linear(isa, dtype, leading, inputs, outputs):
    x, w = normal(*leading, inputs, dtype=dtype), normal(outputs, inputs, dtype=dtype, seed=1)
    b = normal(outputs, dtype=dtype, seed=2)
    wx, ww, wb = o.wide(x), o.wide(w), o.wide(b)
    bound = o.gamma_factor(inputs + 1, dtype) * o.linear(np.abs(wx), np.abs(ww), np.abs(wb))
    result = F.linear(x, w, b)
    assert_within(result, o.linear(wx, ww, wb), bound, dtype=dtype)
    check_out(lambda out: F.linear(x, w, b, out=out), result)
    without = F.linear(x, w)
    bound = o.gamma_factor(inputs, dtype) * o.linear(np.abs(wx), np.abs(ww))
    assert_within(without, o.linear(wx, ww), bound, dtype=dtype)
    np.testing.assert_array_equal(result, without + b)  # one addition after the chain


@each_dtype
def test_linear_layouts(isa, dtype):
    x, w, b = normal(9, 20, dtype=dtype), normal(7, 20, dtype=dtype, seed=1), normal(7, dtype=dtype, seed=2)
    plain = F.linear(x, w, b)
    for what, view in layouts(x):
        np.testing.assert_array_equal(F.linear(view, w, b), plain, err_msg=f"x: {what}")
    for what, view in layouts(w):
        np.testing.assert_array_equal(F.linear(x, view, b), plain, err_msg=f"weight: {what}")
    for what, view in layouts(b):
        np.testing.assert_array_equal(F.linear(x, w, view), plain, err_msg=f"bias: {what}")
    same = np.broadcast_to(b[:1], (7,))
    np.testing.assert_array_equal(F.linear(x, w, same), F.linear(x, w, same.copy()))
    stacked = normal(4, 6, 20, dtype=dtype)
    np.testing.assert_array_equal(
        F.linear(stacked.transpose(1, 0, 2), w, b), F.linear(stacked, w, b).transpose(1, 0, 2)
    )


def test_linear_adds_the_bias_after_the_sum(isa):
    x = np.array([[1.0, 1.0]], np.float32)
    w = np.array([[1.0, -1.0]], np.float32)
    assert F.linear(x, w, np.array([1e-30], np.float32))[0, 0] == np.float32(1e-30)


@each_dtype
def test_linear_refuses(dtype):
    x, w, b = np.ones((4, 3), dtype), np.ones((5, 3), dtype), np.ones(5, dtype)
    out = np.zeros((4, 5), dtype)
    bad = [
        (np.ones((), dtype), w, b),
        (np.ones((4, 2), dtype), w, b),
        (x, np.ones(3, dtype), b),
        (x, np.ones((1, 5, 3), dtype), b),
        (x, w, np.ones(4, dtype)),
        (x, w, np.ones((1, 5), dtype)),
        (x, w, np.ones(1, dtype)),
        (x, w.T, b),
    ]
    for operands in bad:
        with rejected("linear", ValueError, out):
            F.linear(*operands, out=out)
    other = np.float64 if dtype == np.float32 else np.float32
    for i in range(3):
        operands = [x, w, b]
        for kind in (other, np.float16, np.int64, object, complex):
            operands[i] = [x, w, b][i].astype(kind)
            with rejected("linear", TypeError, out):
                F.linear(*operands, out=out)
    for _, error, refused in bad_outs((4, 5), dtype):
        with rejected("linear", error, refused):
            F.linear(x, w, b, out=refused)
    square = np.ones((3, 3), dtype)
    for operands in [(square, w[:3], b[:3]), (x[:3], square, b[:3])]:
        with rejected("linear", ValueError, square):
            F.linear(*operands, out=square)
    pool = np.ones((4, 5), dtype)
    with rejected("linear", ValueError, pool):
        F.linear(x, w, pool[1], out=pool)


# --- linear_backward ---------------------------------------------------------------------------


def check_linear_backward(dy, x, w):
    dtype = x.dtype
    results = F.linear_backward(dy, x, w)
    wdy, wx, ww = o.wide(dy), o.wide(x), o.wide(w)
    expected = o.linear_backward(wdy, wx, ww)
    sizes = o.linear_backward(np.abs(wdy), np.abs(wx), np.abs(ww))
    rows = x.size // x.shape[-1] if x.shape[-1] else dy.size // max(dy.shape[-1], 1)
    # A column is summed in four chains for each 128 rows, the blocks in double.
    chains = (w.shape[0], rows, min(rows, 128) // 4 + 8)
    for name, result, true, size, chain in zip(
        ("dx", "dweight", "dbias"), results, expected, sizes, chains, strict=True
    ):
        assert isinstance(result, np.ndarray), name
        assert_within(result, true, o.gamma_factor(chain, dtype) * size, dtype=dtype)


@each_dtype
@pytest.mark.parametrize("rows", [0, 1, 5, 7, 16, 127, 128, 129, 257, 1023, 1025, 2049])
def test_linear_backward_rows(isa, dtype, rows):
    for inputs, outputs in [(9, 33), (17, 6), (1, 1)]:
        check_linear_backward(
            normal(rows, outputs, dtype=dtype),
            normal(rows, inputs, dtype=dtype, seed=1),
            normal(outputs, inputs, dtype=dtype, seed=2),
        )


@each_dtype
@pytest.mark.parametrize("outputs, inputs", [(3, 5), (40, 150), (150, 40), (9, 1100), (150, 1100)], ids=str)
def test_linear_backward_restarts_its_chains(isa, dtype, outputs, inputs):
    dy, x = normal(2100, outputs, dtype=dtype), normal(2100, inputs, dtype=dtype, seed=1)
    parts = [F.matmul(dy[i : i + 1024].T, x[i : i + 1024]) for i in range(0, 2100, 1024)]
    _, dweight, _ = F.linear_backward(dy, x, np.zeros((outputs, inputs), dtype))
    np.testing.assert_array_equal(dweight, (parts[0] + parts[1]) + parts[2])


@each_dtype
@pytest.mark.parametrize("leading", [(), (3, 5), (2, 0, 3), (2, 3, 4)], ids=str)
def test_linear_backward_leading_axes(isa, dtype, leading):
    check_linear_backward(
        normal(*leading, 6, dtype=dtype),
        normal(*leading, 15, dtype=dtype, seed=1),
        normal(6, 15, dtype=dtype, seed=2),
    )


@each_dtype
def test_linear_backward_layouts(isa, dtype):
    operands = [
        normal(9, 7, dtype=dtype),
        normal(9, 20, dtype=dtype, seed=1),
        normal(7, 20, dtype=dtype, seed=2),
    ]
    plain = F.linear_backward(*operands)
    for i in range(3):
        for what, view in layouts(operands[i]):
            for result, expected in zip(
                F.linear_backward(*operands[:i], view, *operands[i + 1 :]), plain, strict=True
            ):
                np.testing.assert_array_equal(result, expected, err_msg=f"operand {i}: {what}")
    one = np.ones((1, 1), dtype)  # the gradient of a sum is a broadcast view
    check_linear_backward(np.broadcast_to(one, (9, 7)), operands[1], operands[2])


def test_linear_backward_against_central_differences():
    x, w, b, dy = normal(6, 5), normal(4, 5, seed=1), normal(4, seed=2), normal(6, 4, seed=3)
    for analytic, f, at in zip(
        F.linear_backward(dy, x, w),
        (
            lambda v: np.sum(dy * F.linear(v, w, b)),
            lambda v: np.sum(dy * F.linear(x, v, b)),
            lambda v: np.sum(dy * F.linear(x, w, v)),
        ),
        (x, w, b),
        strict=True,
    ):
        assert o.gradient_error(analytic, o.central_difference(f, at)) < 1e-6


@each_dtype
def test_linear_backward_refuses(dtype):
    dy, x, w = np.ones((4, 5), dtype), np.ones((4, 3), dtype), np.ones((5, 3), dtype)
    bad = [
        (dy[:3], x, w),
        (dy[:, :4], x, w),
        (dy, x[:, :2], w),
        (dy, x, w.T),
        (dy, x, w[0]),
        (dy[None], x, w),
        (np.ones((), dtype), x, w),
        (dy, np.ones((2, 2, 3), dtype), w),
    ]
    for operands in bad:
        with rejected("linear_backward", ValueError):
            F.linear_backward(*operands)
    other = np.float64 if dtype == np.float32 else np.float32
    for i in range(3):
        for kind in (other, np.float16, np.int32, object):
            operands = [dy, x, w]
            operands[i] = operands[i].astype(kind)
            with rejected("linear_backward", TypeError):
                F.linear_backward(*operands)


def test_joining_and_reshaping_refuse():
    x = np.ones((2, 3))
    for arrays in (5, None):
        with rejected("concatenate", TypeError):
            F.concatenate(arrays)
    for shape in (None, 2.5, "3", (1.5,)):
        with rejected("reshape", TypeError):
            F.reshape(x, shape)
    for axis in (2, 2**70):
        with rejected("concatenate", ValueError):
            F.concatenate([x, x], axis=axis)
    with rejected("reshape", ValueError):
        F.reshape(x, 2**70)


def test_functional_is_reachable_from_the_package():
    assert gv.functional is F
