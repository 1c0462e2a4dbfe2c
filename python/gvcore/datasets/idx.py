"""Reading of idx files, the format of MNIST. Nothing is downloaded.

Format: http://yann.lecun.com/exdb/mnist (two zero bytes, a type code, the number of dimensions,
each size as a big-endian uint32, then the elements in C order, big-endian).
"""

from __future__ import annotations

import math
import os
import struct
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_idx"]

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def load_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an array from an idx file, plain or compressed with gzip.

    Parameters
    ----------
    path : str or path
        For example ``train-images-idx3-ubyte.gz``. Compression is recognised by content, not by name.

    Returns
    -------
    ndarray
        A new array of the shape and the dtype of the file (uint8, int8, int16, int32, float32 or
        float64), in the byte order of this machine.

    Raises
    ------
    TypeError
        If `path` is neither str nor path-like.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not an idx file, or is shorter or longer than its header says.

    Examples
    --------
    >>> import gvcore as gv, pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]))
    ...     gv.datasets.load_idx(path)
    array([7, 2, 1], dtype=uint8)
    """
    import gzip  # here, because it would cost every import of gvcore
    import zlib

    if not isinstance(path, (str, bytes, os.PathLike)):
        raise TypeError(f"[load_idx] expected a path (str or os.PathLike), got {path!r}")
    name = os.fspath(path)
    with open(name, "rb") as stream:
        compressed = stream.read(2) == _GZIP_MAGIC
        stream.seek(0)
        if not compressed:
            return _read(stream, name)
        try:
            with gzip.open(stream, "rb") as plain:
                return _read(cast(IO[bytes], plain), name)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"[load_idx] expected a whole gzip file, got {name!r}: {error}") from error


def _read(stream: IO[bytes], name: str) -> NDArray[Any]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES:
        raise ValueError(
            f"[load_idx] expected an idx file (two zero bytes, a type code, the number of dimensions), "
            f"got {magic.hex(' ') or 'nothing'} at the start of {name!r}"
        )
    dtype, dimensions = np.dtype(_DTYPES[magic[2]]), magic[3]
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise ValueError(f"[load_idx] expected {dimensions} sizes, got the end of {name!r}")
    shape = struct.unpack(f">{dimensions}I", sizes)
    expected = math.prod(shape) * dtype.itemsize
    # What is there decides how much memory is taken, not what the header claims.
    data = stream.read()
    if len(data) != expected:
        raise ValueError(
            f"[load_idx] expected {expected} bytes for shape {shape} of {dtype.name}, "
            f"got {len(data)} in {name!r}"
        )
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
