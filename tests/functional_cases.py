"""What the tests of gvcore.functional share: operands in awkward memory, the comparison against
a stated bound, and the check that a refusal says what it must and writes nothing."""

import contextlib

import numpy as np
import pytest

import gvcore as gv
from oracles import unit_roundoff

DTYPES = [np.float32, np.float64]
ISAS = gv.available_isas()
SIZES = [0, 1, 5, 6, 7, 13, 14, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129]

each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["f32", "f64"])


@pytest.fixture(name="isa", params=ISAS)
def on_every_isa(request):
    """Runs the test once with each instruction set that this CPU has; a file of tests that asks for
    it says `isa = on_every_isa`."""
    with gv.isa(request.param):
        yield request.param


def normal(*shape, dtype=np.float64, seed=0, scale=1.0):
    return (np.random.default_rng([seed, *shape]).normal(size=shape) * scale).astype(dtype)


def layouts(x):
    """The same values in every kind of memory: (description, array)."""
    filling = np.nan if x.dtype.kind == "f" else 99
    yield "contiguous", x.copy(order="C")
    yield "Fortran order", x.copy(order="F")
    spaced = np.full(tuple(2 * n + 1 for n in x.shape), filling, x.dtype)
    inner = spaced[tuple(slice(1, 2 * n + 1, 2) for n in x.shape)]
    inner[...] = x
    yield "every second element", inner
    yield (
        "negative steps",
        np.ascontiguousarray(x[(slice(None, None, -1),) * x.ndim])[(slice(None, None, -1),) * x.ndim],
    )
    padded = np.full((*x.shape[:-1], x.shape[-1] + 3), filling, x.dtype)
    padded[..., 1:-2] = x
    yield "padded rows", padded[..., 1:-2]
    bytes_ = np.zeros(x.nbytes + 1, np.uint8)
    misaligned = bytes_[1:].view(x.dtype).reshape(x.shape)
    misaligned[...] = x
    yield "misaligned", misaligned
    frozen = x.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen


def memory_map(path, x):
    """x as a read-only memory map of a file."""
    x.tofile(path)
    return np.memmap(path, dtype=x.dtype, mode="r", shape=x.shape)


def tiny(dtype):
    """Below the smallest normal number a result may lose digits or become zero."""
    return float(np.finfo(dtype).tiny)


def assert_within(actual, expected, bound, *, dtype=None):
    """|actual - expected| <= bound for every element; dtype and shape as expected of the result."""
    assert isinstance(actual, np.ndarray) or np.isscalar(actual)
    if dtype is not None:
        assert np.asarray(actual).dtype == dtype, f"dtype {np.asarray(actual).dtype}"
    assert np.shape(actual) == np.shape(expected), f"{np.shape(actual)} != {np.shape(expected)}"
    error = np.abs(np.asarray(actual).astype(np.asarray(expected).dtype) - expected)
    bound = np.broadcast_to(bound, error.shape)
    worst = error > bound
    if np.any(worst | np.isnan(error)):
        i = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error - bound)), error.shape)
        raise AssertionError(
            f"at {tuple(map(int, i))}: {np.asarray(actual)[i]!r} is {error[i]:.3e} from "
            f"{np.asarray(expected)[i]!r}, bound {bound[i]:.3e}; {np.sum(worst)} of {worst.size} beyond"
        )


def ulps(n, dtype):
    """n·u, the relative error of about n roundings."""
    return n * unit_roundoff(dtype)


@contextlib.contextmanager
def rejected(op, error, *untouched):
    """The call inside raises `error` with "[op] expected …, got …" and writes to no array given."""
    before = [a.tobytes() for a in untouched]
    with pytest.raises(error) as caught:
        yield
    text = str(caught.value)
    assert text.startswith(f"[{op}] "), text
    assert "expected" in text and "got" in text, text
    assert [a.tobytes() for a in untouched] == before, f"{op} wrote something before it raised"


# Arrays that no functional kernel takes, for a given shape.
WRONG_KINDS = {
    "float16": lambda shape: np.ones(shape, np.float16),
    "int64": lambda shape: np.ones(shape, np.int64),
    "int32": lambda shape: np.ones(shape, np.int32),
    "bool": lambda shape: np.ones(shape, bool),
    "complex": lambda shape: np.ones(shape, np.complex128),
    "object": lambda shape: np.full(shape, 1.0, object),
    "string": lambda shape: np.full(shape, "1.0"),
    "datetime": lambda shape: np.zeros(shape, "datetime64[s]"),
    "long double": lambda shape: np.ones(shape, np.longdouble),
}
each_wrong_kind = pytest.mark.parametrize("kind", WRONG_KINDS)


def wrong_kind(kind, *shape):
    return WRONG_KINDS[kind](shape)


def bad_outs(shape, dtype):
    """(description, error, array): outputs that must be refused for a result of this shape."""
    other = np.float64 if dtype == np.float32 else np.float32
    frozen = np.zeros(shape, dtype)
    frozen.flags.writeable = False
    yield "one row more", ValueError, np.zeros((shape[0] + 1, *shape[1:]), dtype)
    yield "one axis more", ValueError, np.zeros((1, *shape), dtype)
    if len(shape) > 1:
        yield "one axis less", ValueError, np.zeros(int(np.prod(shape)), dtype)
    yield "other precision", TypeError, np.zeros(shape, other)
    yield "integers", TypeError, np.zeros(shape, np.int64)
    yield "read-only", ValueError, frozen
    yield "broadcast", ValueError, np.broadcast_to(np.zeros(1, dtype), shape)


def check_out(call, expected):
    """out= is returned itself, holds the same bits, is written in full and nothing beside it is;
    an out with steps is either honoured or refused, never copied silently."""
    out = np.full(expected.shape, np.nan, expected.dtype)
    returned = call(out)
    first = returned[0] if isinstance(returned, tuple) else returned
    assert first is out
    np.testing.assert_array_equal(out, expected)
    around = np.full(tuple(2 * n + 2 for n in expected.shape), 77, expected.dtype)
    inside = tuple(slice(1, 2 * n + 1, 2) for n in expected.shape)
    out = around[inside]
    try:
        call(out)
    except ValueError as error:
        assert "got" in str(error)
        assert np.all(around == 77)
    else:
        np.testing.assert_array_equal(out, expected)
        around[inside] = 77
        assert np.all(around == 77)
