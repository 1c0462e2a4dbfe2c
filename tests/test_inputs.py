"""What a net takes as input: arrays of every dtype as they lie, scaled ones and memory maps, with the bits of
NumPy's own conversion and without a copy of the whole."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn
from gvcore.data import Scaled
from gvcore.nn.inference import Plan, Recorded, as_input
from gvcore.train.batch import as_batch

ISAS = gv.available_isas()
DTYPES = [np.dtype(code) for code in "?bBhHiIqQefd"]
SCALES = [(1.0, 0.0), (1 / 255, 0.0), (2 / 255, -1.0), (-0.5, 0.0), (1.0, 3.0), (3e-40, 1e-45)]
WIDTHS = [0, 1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 130]


class Passes(nn.Module):
    """What goes in comes out, in the dtype of the net."""

    def __init__(self, dtype: Any) -> None:
        self.unused = nn.Parameter(np.zeros(1, dtype))

    def forward(self, x: Any) -> Any:
        return x


def random_bytes(shape: tuple[int, ...], dtype: np.dtype[Any], seed: int = 0) -> Any:
    """Every pattern of bits may occur: NaN, infinities, subnormals, the ends of the integers."""
    random = np.random.default_rng([seed, *shape])
    size = int(np.prod(shape))
    array = random.integers(0, 256, size * dtype.itemsize, np.uint8).view(dtype)
    if dtype.kind in "iu" and size > 2:
        array[:2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    if dtype.kind == "f" and size > 4:
        array[:4] = 0.0, -0.0, np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    return array.reshape(shape)


def reference(x: Any, dtype: Any, scale: float, shift: float) -> Any:
    """Convert, multiply, add, each rounded; a scale of 1 and a shift of 0 are not applied."""
    with np.errstate(all="ignore"):
        result = x.astype(dtype)
        result = result if scale == 1.0 else result * dtype(scale)
        return result if dtype(shift) == 0.0 else result + dtype(shift)


def assert_bits(found: Any, expected: Any) -> None:
    """The same bytes; of NaN only that it is one."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    bad = np.isnan(expected)
    assert (np.isnan(found) == bad).all()
    assert np.where(bad, 0, found).tobytes() == np.where(bad, 0, expected).tobytes()


# ---- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("net_dtype", [np.float32, np.float64])
def test_conversion_has_the_bits_of_numpy(isa: str, dtype: np.dtype[Any], net_dtype: Any) -> None:
    net = Passes(net_dtype)
    for width in WIDTHS:
        x = random_bytes((5, width), dtype)
        for scale, shift in SCALES:
            with gv.isa(isa):
                found = net(gv.scaled(x, scale, shift))
                plain = net(x)
            assert_bits(found, reference(x, net_dtype, scale, shift))
            assert_bits(plain, reference(x, net_dtype, 1.0, 0.0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("net_dtype", [np.float32, np.float64])
def test_every_float16(isa: str, net_dtype: Any) -> None:
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(-1, 64)
    with gv.isa(isa):
        assert_bits(Passes(net_dtype)(x), x.astype(net_dtype))


@pytest.mark.parametrize("isa", ISAS)
def test_integers_beyond_the_fraction_are_rounded_once(isa: str) -> None:
    """Halfway cases of float32 and of float64, where rounding twice would show."""
    steps = np.array([-1, 0, 1], np.int64)
    halfway = [(1 << p) + (1 << (p - 24)) for p in range(25, 63)]
    halfway += [(1 << p) + (1 << (p - 53)) for p in range(54, 63)]
    halfway += [(1 << p) + (1 << (p - 24)) + (1 << (p - 53)) for p in range(54, 63)]
    large = (np.array(halfway, np.int64)[:, None] + steps).reshape(1, -1)
    for x in (large, -large, large.astype(np.uint64) * np.uint64(2) + np.uint64(1)):
        for net_dtype in (np.float32, np.float64):
            with gv.isa(isa):
                assert_bits(Passes(net_dtype)(x), x.astype(net_dtype))


def test_a_bool_may_be_any_byte() -> None:
    x = np.array([[0, 1, 2, 255]], np.uint8).view(np.bool_)
    assert Passes(np.float32)(x).tolist() == [[0, 1, 1, 1]]


# ---- how an array lies -------------------------------------------------------------------------

WIDE = random_bytes((23, 41), np.dtype(np.int16))
DEEP = random_bytes((6, 5, 4, 3), np.dtype(np.uint8))
AS_THEY_LIE = {
    "contiguous": WIDE,
    "some columns": WIDE[:, 3:20],
    "backwards": WIDE[::-1, 1:],
    "every third": WIDE[1::3],
    "one row again and again": np.broadcast_to(WIDE[4], (7, 41)),
    "overlapping": np.lib.stride_tricks.sliding_window_view(WIDE.reshape(-1), 17)[::5],
    "one column": WIDE[:, 2:3],
    "numbers": WIDE[:, 2],
    "read-only": np.frombuffer(WIDE.tobytes(), np.int16).reshape(WIDE.shape),
    "off by a byte": np.frombuffer(b"\0" + WIDE.tobytes(), np.int16, offset=1).reshape(WIDE.shape),
    "off by a byte in steps": np.frombuffer(b"\0" + WIDE.tobytes(), np.int16, offset=1).reshape(23, 41)[::2],
    "odd steps": np.ndarray((9, 5), np.int16, WIDE.tobytes(), strides=(13, 2)),
    "three axes": DEEP[:, 1, :, :],
    "four axes": DEEP[::2],
    "no rows": WIDE[:0],
    "no columns": WIDE[:, :0],
    "no columns, in steps": WIDE[::2, ::2][:, :0],
}
COPIED = {
    "every second column": WIDE[:, ::2],
    "transposed": WIDE.T,
    "columns first": np.asfortranarray(WIDE),
    "mirrored": WIDE[:, ::-1],
    "axes swapped": DEEP.transpose(0, 3, 1, 2),
    "the other byte order": WIDE.astype(WIDE.dtype.newbyteorder()),
}


@pytest.mark.parametrize("name", [*AS_THEY_LIE, *COPIED])
def test_any_layout(name: str) -> None:
    x = (AS_THEY_LIE | COPIED)[name]
    taken = as_input("net", "x", x)
    assert isinstance(taken, np.ndarray)
    if x.size:
        assert np.shares_memory(taken, x) == (name in AS_THEY_LIE)
    assert_bits(Passes(np.float32)(x), x.astype(np.float32))
    assert_bits(Passes(np.float32)(gv.scaled(x, 0.1, 2.0)), reference(x, np.float32, 0.1, 2.0))


@pytest.mark.parametrize("name", [*AS_THEY_LIE, *COPIED])
def test_rows_are_gathered_in_any_order(name: str, deals_everything: None) -> None:
    x = (AS_THEY_LIE | COPIED)[name]
    if len(x) == 0:
        return
    seen = []

    def loss(prediction: Any, target: Any) -> Any:
        seen.append(prediction)
        return 0.0, np.zeros_like(prediction)

    step = gv.TrainStep(Passes(np.float32), loss, gv.optim.SGD(lr=0.1))
    batch = as_batch("TrainStep", gv.scaled(x, 0.1, 2.0), np.zeros(len(x)), np.dtype(np.float32), loss)
    batch.order = np.random.default_rng(0).integers(0, len(x), 50)
    for threads in (1, 2, 3):
        with gv.threads(threads):
            step.run(batch)
        assert_bits(seen[-1], reference(x, np.float32, 0.1, 2.0)[batch.order])


def test_what_the_plan_refuses() -> None:
    """The Python side does not let such inputs through; the binding does not trust it."""
    options = {"training": False, "gradients": False, "update_inside": False, "fuse": True}
    core = Plan(Recorded(Passes(np.float32), ((4,),)), options).bind()
    for bad in ([1.0], np.zeros((2, 4), ">f4"), np.zeros((2, 4), complex), np.zeros((2, 4), np.longdouble)):
        with pytest.raises((TypeError, AttributeError)):
            core.infer([bad])
    for bad in (np.zeros((2, 5)), np.zeros((2, 8))[:, ::2], np.zeros((4, 2)).T, np.float32(1.0)):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            core.infer([bad])


# ---- training ----------------------------------------------------------------------------------

RANDOM = np.random.default_rng(1)
PIXELS = RANDOM.integers(0, 256, (151, 37), np.uint8)
LABELS = RANDOM.integers(0, 3, 151)
FLOATS = PIXELS.astype(np.float32) * np.float32(1 / 255)


def make(dtype: Any = np.float32, **options: Any) -> gv.Trainer:
    net = gv.models.mlp(37, 3, [16, 16], batch_norm=True, dropout=0.2, seed=0).astype(dtype)
    return gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1, momentum=0.9), seed=0, **options)


def trained(x: Any, dtype: Any = np.float32, *, validation: Any = 0.2, **options: Any) -> tuple[Any, Any]:
    trainer = make(dtype, **options)
    history = trainer.fit(
        x, LABELS, epochs=2, batch_size=32, validation=validation, metrics=["accuracy", "top_2"]
    )
    records = [{k: v for k, v in r.items() if k != "seconds"} for r in [*history.epoch, *history.step]]
    state = {name: array.tobytes() for name, array in trainer.net.state_dict().items()}
    found = trainer.evaluate(x, LABELS, metrics=["accuracy"]), trainer.predict(x).tobytes()
    return state, (records, found)


def mapped(folder: Path, array: Any, name: str = "x.bin") -> Any:
    array.tofile(folder / name)
    return np.memmap(folder / name, array.dtype, "r", shape=array.shape)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_training_on_bytes_is_training_on_floats(isa: str, threads: int, deals_everything: None) -> None:
    with gv.isa(ISAS[0]), gv.threads(1):
        expected = trained(FLOATS)
    with gv.isa(isa), gv.threads(threads):
        assert trained(gv.scaled(PIXELS, 1 / 255)) == expected


@pytest.mark.parametrize("net_dtype", [np.float32, np.float64])
def test_training_from_any_dtype(net_dtype: Any, tmp_path: Path) -> None:
    small = (PIXELS % 7).astype(np.int8)
    expected = trained(small.astype(net_dtype), net_dtype)
    for dtype in DTYPES[1:]:
        assert trained(small.astype(dtype), net_dtype) == expected, dtype
        assert trained(mapped(tmp_path, small.astype(dtype), f"{dtype}"), net_dtype) == expected, dtype
    wide = np.zeros((302, 50), np.int16)
    wide[::2, 5:42] = small
    assert trained(wide[::2, 5:42], net_dtype) == expected
    assert trained(small > 3, net_dtype) == trained((small > 3).astype(net_dtype), net_dtype)
    fine = RANDOM.normal(size=small.shape) * 1.1  # float32 cannot hold these
    assert trained(fine, net_dtype) == trained(fine.astype(net_dtype), net_dtype)
    assert trained(fine.astype(np.float16), net_dtype) == trained(
        fine.astype(np.float16).astype(net_dtype), net_dtype
    )


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.1}])
def test_scale_and_shift(options: dict[str, Any], tmp_path: Path) -> None:
    floats = FLOATS * np.float32(3.0) + np.float32(-1.5)
    x = gv.scaled(FLOATS, 3.0, -1.5)
    expected = trained(floats, validation=(floats[:50], LABELS[:50]), **options)
    assert trained(x, validation=(x[:50], LABELS[:50]), **options) == expected
    again = gv.scaled(mapped(tmp_path, FLOATS), 3.0, -1.5)
    assert trained(again, validation=(again[:50], LABELS[:50]), **options) == expected


def test_every_door_takes_scaled_inputs() -> None:
    x, loss = gv.scaled(PIXELS, 1 / 255), nn.CrossEntropyLoss()
    net, other = make().net, make().net
    assert (net(x) == other(FLOATS)).all()
    assert (net(x[3:9]) == other(FLOATS[3:9])).all()
    steps = [gv.TrainStep(one, loss, gv.optim.SGD(lr=0.1), seed=0) for one in (net, other)]
    assert steps[0](x, LABELS) == steps[1](FLOATS, LABELS)
    assert steps[0](x, LABELS, accumulate=True) == steps[1](FLOATS, LABELS, accumulate=True)
    assert steps[0](x[:70], LABELS[:70]) == steps[1](FLOATS[:70], LABELS[:70])
    found = [gv.value_and_grad(one, loss)(data, LABELS, seed=3) for one, data in ((net, x), (other, FLOATS))]
    assert found[0][0] == found[1][0]
    assert all((found[0][1][name] == found[1][1][name]).all() for name in found[1][1])
    assert str(gv.diagnose(net, x, LABELS, loss)) == str(gv.diagnose(other, FLOATS, LABELS, loss))
    ranges = [gv.find_lr(one, data, LABELS, loss, steps=20) for one, data in ((net, x), (other, FLOATS))]
    assert ranges[0].losses.tobytes() == ranges[1].losses.tobytes()


def test_inputs_of_several_kinds_together() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            self.a, self.b = nn.Linear(37, 3, seed=0), nn.Linear(4, 3, seed=1)

        def forward(self, x: Any, z: Any) -> Any:
            return self.a(x) + self.b(z)

    z = RANDOM.normal(size=(151, 4))
    trainers = [gv.Trainer(Sum(), nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), seed=0) for _ in range(2)]
    inputs = [(gv.scaled(PIXELS, 1 / 255), z), (FLOATS, z.astype(np.float32))]
    for trainer, x in zip(trainers, inputs, strict=True):
        trainer.fit(x, LABELS, epochs=2, batch_size=20, validation=0.1)
    a, b = (trainer.predict(x) for trainer, x in zip(trainers, inputs, strict=True))
    assert (a == b).all()
    with pytest.raises(ValueError, match=r"inputs of one length, got \[\(151, 37\), \(150, 4\)\]"):
        trainers[0].fit((inputs[0][0], z[:150]), LABELS, epochs=1, batch_size=20)


# ---- what is not finite ------------------------------------------------------------------------


def test_bad_values_are_those_that_the_net_would_get(tmp_path: Path) -> None:
    huge = FLOATS.astype(np.float64)
    huge[57, 2] = 1e300
    huge[3, 1] = np.nan
    where = r"\[fit\] expected x to be finite in float32, got nan at index \(3, 1\)"
    trainer = make()
    for x in (huge, gv.scaled(huge, 2.0), np.where(huge > 1.0, 1.0, huge).astype(np.float16)):
        with pytest.raises(ValueError, match=where):
            trainer.fit(x, LABELS, epochs=1, batch_size=151)
    huge[3, 1] = 0.0
    where = r"to be finite in float32, got inf at index \(57, 2\)"
    for x in (
        huge,
        gv.scaled(huge, 1.0, 1.0),
        mapped(tmp_path, huge),
        gv.scaled(mapped(tmp_path, huge), 2.0),
    ):
        with pytest.raises(ValueError, match=where):
            trainer.fit(x, LABELS, epochs=1, batch_size=151, shuffle=False)
        with pytest.raises(ValueError, match=where.replace("57", "7")):
            trainer.fit(FLOATS, LABELS, epochs=1, batch_size=151, validation=(x[50:], LABELS[50:]))
    for name, call in (
        ("diagnose", lambda x: gv.diagnose(trainer.net, x, LABELS, nn.CrossEntropyLoss())),
        ("find_lr", lambda x: gv.find_lr(trainer.net, x, LABELS, nn.CrossEntropyLoss())),
    ):
        with pytest.raises(ValueError, match=rf"\[{name}\] expected x to be finite, got inf at .*\(57, 2\)"):
            call(huge)
    assert trainer.step.updates == 0
    make(np.float64).fit(gv.scaled(huge, 1e-280), LABELS, epochs=1, batch_size=151)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_memory_maps_are_looked_at_row_by_row(dtype: Any, tmp_path: Path) -> None:
    many = np.tile(FLOATS, (40, 1)).astype(dtype)
    many[4000, 1] = np.inf
    labels, file = np.tile(LABELS, 40), mapped(tmp_path, many)
    for x in (file, gv.scaled(file, 2.0)):
        trainer = make()
        with pytest.raises(ValueError, match=r"x to be finite in float32, got inf at index \(4000, 1\)"):
            trainer.fit(x, labels, epochs=1, batch_size=10, shuffle=False)
        assert 0 < trainer.step.updates <= 400  # the rows before it were trained on
        trainer.fit(x, labels, epochs=1, batch_size=10, sample_weight=np.arange(6040) != 4000)


def test_a_failure_is_explained_from_integers() -> None:
    x = np.full((50, 2), -32768, np.int16)  # whose absolute value is no int16
    trainer = gv.Trainer(nn.Linear(2, 1, seed=0), nn.MSELoss(), gv.optim.SGD(lr=1e3), seed=0)
    with pytest.raises(FloatingPointError, match=r"inputs as large as 3\.28e\+04; scale the columns"):
        trainer.fit(x, np.zeros((50, 1)), epochs=20, batch_size=10)
    small = gv.Trainer(nn.Linear(2, 1, seed=0), nn.MSELoss(), gv.optim.SGD(lr=1e9), seed=0)
    with pytest.raises(FloatingPointError, match=r"a learning rate of 1e\+09 is too large"):
        small.fit(gv.scaled(x, 1e-4), np.zeros((50, 1)), epochs=20, batch_size=10)


def test_a_scale_can_take_integers_out_of_range() -> None:
    x = PIXELS.astype(np.int32)
    x[:, :] = 1
    x[9, 4] = 2_000_000_000
    with pytest.raises(ValueError, match=r"finite in float32, got inf at index \(9, 4\)"):
        make().fit(gv.scaled(x, 1e30), LABELS, epochs=1, batch_size=151)
    make().fit(gv.scaled(x, 1e-9), LABELS, epochs=1, batch_size=151)
    make(np.float64).fit(gv.scaled(x, 1e30), LABELS, epochs=0, batch_size=151)


# ---- memory ------------------------------------------------------------------------------------

MANY, FEATURES = 1 << 15, 1024


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
def test_no_array_is_copied_as_a_whole(dtype: Any, tmp_path: Path) -> None:
    """From a sparse file: 32 MiB of bytes to 256 of float64; what NumPy takes stays below 16."""
    with open(tmp_path / "x.bin", "wb") as file:
        file.truncate(MANY * FEATURES * np.dtype(dtype).itemsize)
    x = np.memmap(tmp_path / "x.bin", dtype, "r", shape=(MANY, FEATURES))
    y = np.arange(MANY) % 3
    trainer = gv.Trainer(nn.Linear(FEATURES, 3, seed=0), nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), seed=0)
    for data in (x, gv.scaled(x, 0.5, 1.0)):
        tracemalloc.start()
        try:
            trainer.fit(data, y, epochs=1, batch_size=2048, validation=0.1)
            trainer.evaluate(data, y)
            trainer.predict(data)
            gv.TrainStep(trainer.net, trainer.loss, gv.optim.SGD(lr=0.1))(data[:4096], y[:4096])
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert most < 16 << 20
    assert trainer.step.updates == 2 * 15


# ---- scaled itself -----------------------------------------------------------------------------


def test_scaled_is_an_array_of_rows() -> None:
    x = gv.scaled(PIXELS, 1 / 255, 0.5)
    assert isinstance(x, Scaled) and x.array is PIXELS and (x.scale, x.shift) == (1 / 255, 0.5)
    assert (x.shape, x.ndim, x.size, len(x)) == ((151, 37), 2, 151 * 37, 151)
    assert x.dtype == np.asarray(x).dtype == np.float32
    assert gv.scaled(PIXELS.astype(np.float64), 2).dtype == np.float64
    assert_bits(np.asarray(x), reference(PIXELS, np.float32, 1 / 255, 0.5))
    assert_bits(np.asarray(x, np.float64), reference(PIXELS, np.float64, 1 / 255, 0.5))
    for floats in (random_bytes((9, 5), np.dtype(np.float32)), random_bytes((9, 5), np.dtype(np.float64))):
        for scale, shift in SCALES:
            with np.errstate(all="ignore"):
                found = np.asarray(gv.scaled(floats, scale, shift))
            assert_bits(found, reference(floats, floats.dtype.type, scale, shift))
    assert np.asarray(x, np.int32).tolist() == x.astype(np.float64).astype(np.int32).tolist()
    assert_bits(np.asarray(x[5, 3]), np.asarray(x)[5, 3])
    for rows in (slice(3, 9), np.array([7, 1, 1]), PIXELS[:, 0] > 99, 4, (slice(None), 2)):
        assert_bits(np.asarray(x[rows]), np.asarray(x)[rows])
    assert np.shares_memory(x[3:9].array, PIXELS)
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        with pytest.raises(ValueError, match="copy"):
            np.asarray(x, copy=False)
    assert repr(gv.scaled(PIXELS, 2)) == "scaled(uint8 of shape (151, 37), 2.0, 0.0)"
    for other in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert_bits(np.asarray(other), np.asarray(x))
    assert gv.scaled([[1, 2]], 0.5)[0].array.tolist() == [1, 2]


def test_splits_of_scaled_arrays_stay_bytes() -> None:
    x_train, x_test, y_train, y_test = gv.train_test_split(
        gv.scaled(PIXELS, 1 / 255), LABELS, test_size=0.3, seed=4, stratify=LABELS
    )
    expected = gv.train_test_split(FLOATS, LABELS, test_size=0.3, seed=4, stratify=LABELS)
    assert x_train.array.dtype == x_test.array.dtype == np.uint8
    for found, wanted in zip((x_train, x_test, y_train, y_test), expected, strict=True):
        assert_bits(np.asarray(found, wanted.dtype), wanted)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((["a"], 1.0), TypeError, r"\[scaled\] expected x of dtype float16/32/64, integer or bool, got <U1"),
        (
            (np.zeros(3, complex), 1.0),
            TypeError,
            r"\[scaled\] expected x of dtype .* got complex128 of shape",
        ),
        ((np.zeros(3, np.longdouble), 1.0), TypeError, r"\[scaled\] expected x of dtype"),
        ((PIXELS, "1"), TypeError, r"\[scaled\] expected scale to be a finite number, got '1'"),
        ((PIXELS, np.inf), ValueError, r"\[scaled\] expected scale to be a finite number, got inf"),
        ((PIXELS, 1.0, np.nan), ValueError, r"\[scaled\] expected shift to be a finite number, got nan"),
        ((PIXELS, np.ones(37)), TypeError, r"\[scaled\] expected scale to be a finite number"),
        ((gv.scaled(PIXELS, 2.0), 2.0), TypeError, r"\[scaled\] expected x to be an array, got one that is"),
    ],
)
def test_scaled_refuses(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        gv.scaled(*arguments)


def test_scaled_inputs_are_refused_as_arrays_are() -> None:
    trainer = make()
    pairs = [(np.float32(1.0), "a scalar"), (np.zeros((2, 1, 1, 1, 1)), "at most 3 axes behind the batch")]
    for value, text in pairs:
        for x in (value, gv.scaled(value, 2.0)):
            with pytest.raises(ValueError, match=rf"\[net\] expected x .*{text}"):
                trainer.net(x)
            with pytest.raises(ValueError, match=rf"\[fit\] expected x .*{text}"):
                trainer.fit(x, LABELS, epochs=1, batch_size=10)
    for x in (PIXELS[:, :5], gv.scaled(PIXELS[:, :5], 2.0)):
        with pytest.raises(ValueError, match="37"):
            trainer.net(x)
    with pytest.raises(ValueError, match=r"\[evaluate\] expected y with 151 rows"):
        trainer.evaluate(gv.scaled(PIXELS, 2.0), LABELS[:9])
    with pytest.raises(ValueError, match=r"\[predict\] expected x of shape"):
        trainer.predict(gv.scaled(3.0, 2.0))


# ---- several inputs ----------------------------------------------------------------------------


class Pair(nn.Module):
    def __init__(self) -> None:
        self.first, self.second = nn.Linear(3, 2, seed=0), nn.Linear(2, 2, seed=1)

    def forward(self, x: Any, z: Any) -> Any:
        return self.first(x) + self.second(z)


X3, X2, TWO = np.ones((10, 3), np.float32), np.ones((10, 2), np.float32), np.arange(10) % 2


def doors(net: nn.Module) -> dict[str, Any]:
    """Every way to hand inputs over, by the name that its errors begin with."""
    trainer = gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), seed=0)
    return {
        "fit": lambda x: trainer.fit(x, TWO, epochs=1, batch_size=5),
        "predict": trainer.predict,
        "evaluate": lambda x: trainer.evaluate(x, TWO),
        "TrainStep": lambda x: trainer.step(x, TWO),
        "value_and_grad": lambda x: gv.value_and_grad(net, nn.CrossEntropyLoss())(x, TWO),
        "diagnose": lambda x: gv.diagnose(net, x, TWO, nn.CrossEntropyLoss()),
    }


DOORS = ["fit", "predict", "evaluate", "TrainStep", "value_and_grad", "diagnose"]


@pytest.mark.parametrize("door", DOORS)
def test_a_list_is_one_array(door: str) -> None:
    expected = rf"\[{door}\] expected x to be an array, for several inputs a tuple of them, got a"
    with pytest.raises(ValueError, match=f"{expected} list"):
        doors(nn.Linear(3, 2, seed=0))[door]([X3, X2])
    with pytest.raises(ValueError, match=f"{expected} tuple"):
        doors(Pair())[door]((X3, [[1.0], [2.0, 3.0]]))


@pytest.mark.parametrize("door", ["fit", "TrainStep", "value_and_grad"])
def test_a_list_of_inputs_of_one_shape_gets_a_hint(door: str) -> None:
    text = rf"\[{door}\] expected y with 2 rows as in x, got .*; several inputs make a tuple, not a list"
    with pytest.raises(ValueError, match=text):
        doors(nn.Linear(3, 2, seed=0))[door]([X3, X3])


def test_rows_of_different_lengths_are_named() -> None:
    trainer = gv.Trainer(nn.Linear(3, 2, seed=0), nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.1), seed=0)
    ragged = [0, [1]]
    for op, name, call in (
        ("fit", "y", lambda: trainer.fit(X3, ragged, epochs=1, batch_size=5)),
        ("fit", "sample_weight", lambda: trainer.fit(X3, TWO, epochs=1, batch_size=5, sample_weight=ragged)),
        ("evaluate", "y", lambda: trainer.evaluate(X3, ragged)),
        ("TrainStep", "y", lambda: trainer.step(X3, ragged)),
        ("TrainStep", "sample_weight", lambda: trainer.step(X3, TWO, sample_weight=ragged)),
        ("train_test_split", "stratify", lambda: gv.train_test_split(X3, stratify=ragged)),
        ("net", "x", lambda: trainer.net(ragged)),
        ("scaled", "x", lambda: gv.scaled(ragged, 0.5)),  # type: ignore[arg-type]
        ("CrossEntropyLoss", "weight", lambda: nn.CrossEntropyLoss(weight=ragged)),
        ("BCEWithLogitsLoss", "pos_weight", lambda: nn.BCEWithLogitsLoss(pos_weight=ragged)),
        ("load_state_dict", "bias", lambda: trainer.net.load_state_dict({"bias": ragged}, strict=False)),
        ("train_test_split", "argument 1", lambda: gv.train_test_split(X3, ragged)),
    ):
        with pytest.raises(ValueError, match=rf"\[{op}\] expected {name} to be an array, got a list that"):
            call()


@pytest.mark.parametrize("door", DOORS)
def test_as_many_inputs_as_forward_takes(door: str) -> None:
    name = "TrainStep" if door == "value_and_grad" else door
    for x, count in ((X3, 1), ((X3, X2, X2), 3)):
        text = rf"\[{name}\] expected inputs for forward\(x, z\), several as a tuple, got {count}"
        with pytest.raises(TypeError, match=text):
            doors(Pair())[door](x)
    if door in ("fit", "predict", "evaluate"):
        with pytest.raises(TypeError, match=rf"\[{name}\] expected inputs for forward.*got 1"):
            doors(Pair())[door]([X3, X3])
    doors(Pair())[door]((X3, X2))
