"""The digits that come with the package and the reader of idx files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

import gvcore as gv

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    array = np.asarray(array)
    header = bytes([0, 0, CODES[array.dtype.name], array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + np.asarray(array, array.dtype.newbyteorder(">")).tobytes()


def test_digits_are_what_the_docstring_says() -> None:
    x, y = gv.datasets.digits()
    assert x.shape == (1797, 64) and x.dtype == np.float32 and x.flags.c_contiguous and x.flags.writeable
    assert y.shape == (1797,) and y.dtype == np.int64 and y.flags.writeable
    assert x.min() == 0 and x.max() == 1
    np.testing.assert_array_equal(x * 16, np.round(x * 16))
    assert np.bincount(y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_those_of_scikit_learn() -> None:
    expected = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = gv.datasets.digits()
    np.testing.assert_array_equal(x * 16, expected.data)
    np.testing.assert_array_equal(y, expected.target)


def test_digits_are_new_arrays_at_every_call() -> None:
    x, y = gv.datasets.digits()
    x[:] = -1
    y[:] = -1
    x, y = gv.datasets.digits()
    assert x.min() == 0 and y.min() == 0


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 0), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("compressed", [False, True])
def test_idx_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...], compressed: bool) -> None:
    values = np.arange(-3, np.prod(shape, dtype=int) - 3).reshape(shape) * 37
    expected = values.astype(dtype)
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(idx_bytes(expected)) if compressed else idx_bytes(expected))
    array = gv.datasets.load_idx(path)
    assert array.dtype == expected.dtype and array.dtype.isnative and array.shape == shape
    assert array.flags.writeable and array.flags.c_contiguous
    np.testing.assert_array_equal(array, expected)
    np.testing.assert_array_equal(gv.datasets.load_idx(str(path)), expected)


GOOD = idx_bytes(np.arange(6, dtype=np.int32).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected an idx file .* got nothing"),
        (GOOD[:3], "expected an idx file"),
        (b"\x01" + GOOD[1:], "expected an idx file .* got 01 00 0c 02"),
        (GOOD[:2] + b"\x0a" + GOOD[3:], "expected an idx file .* got 00 00 0a 02"),
        (b"PK\x03\x04" + GOOD, "expected an idx file"),
        (GOOD[:7], "expected 2 sizes, got the end"),
        (GOOD[:-1], r"expected 24 bytes for shape \(2, 3\) of int32, got 23"),
        (GOOD + b"\0", r"expected 24 bytes for shape \(2, 3\) of int32, got 25"),
        (GOOD[:4] + b"\xff" * 8, "got 0 in"),
        (gzip.compress(GOOD)[:-9], "expected a whole gzip file"),
        (gzip.compress(GOOD)[:-8] + bytes(8), "expected a whole gzip file"),
        (gzip.compress(GOOD)[:10] + b"\xff" * 20, "expected a whole gzip file"),
        (gzip.compress(GOOD[:-1]), "got 23"),
    ],
)
def test_idx_says_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken-idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^\[load_idx\] .*{message}") as caught:
        gv.datasets.load_idx(path)
    assert "broken-idx" in str(caught.value)


def test_idx_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        gv.datasets.load_idx(tmp_path / "nowhere")


@pytest.mark.parametrize("path", [5, None])
def test_idx_refuses_what_is_no_path(path: object) -> None:
    with pytest.raises(TypeError, match=r"\[load_idx\] expected a path \(str or os.PathLike\), got "):
        gv.datasets.load_idx(path)  # type: ignore[arg-type]


def test_mnist(data_dir: Path) -> None:
    images = gv.datasets.load_idx(data_dir / "mnist" / "t10k-images-idx3-ubyte.gz")
    labels = gv.datasets.load_idx(data_dir / "mnist" / "t10k-labels-idx1-ubyte.gz")
    assert images.shape == (10000, 28, 28) and images.dtype == np.uint8
    assert labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert 33.7 < images.mean() < 33.9
