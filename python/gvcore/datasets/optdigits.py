"""The handwritten digits that come with the package (see optdigits.txt for source and licence)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["digits"]


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return 1,797 handwritten digits as images of 8 x 8 pixels.

    A pixel counts the black dots, 0 to 16, in a 4 x 4 square of the original bitmap; here it is
    divided by 16, exactly.

    Returns
    -------
    x : ndarray of float32, shape (1797, 64)
        The images, row by row, in [0, 1].
    y : ndarray of int64, shape (1797,)
        The digits, 0 to 9.

    Notes
    -----
    Every call reads the file and returns new arrays. The data are the test set of E. Alpaydin and
    C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49, licence CC BY 4.0; scikit-learn's ``load_digits`` is the same
    in the same order, times 16.

    Examples
    --------
    >>> import gvcore as gv
    >>> x, y = gv.datasets.digits()
    >>> x.shape, str(x.dtype), float(x.max())
    ((1797, 64), 'float32', 1.0)
    >>> [int(n) for n in y[:12]]
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    """
    from importlib.resources import files  # here, because it would cost every import of gvcore

    with files("gvcore.datasets").joinpath("optdigits.npz").open("rb") as stream:
        # Any: an npz file does not say the dtypes that are in it.
        arrays: Any = np.load(stream, allow_pickle=False)
        x, y = arrays["x"], arrays["y"]
    return x.astype(np.float32) / np.float32(16), y.astype(np.int64)
