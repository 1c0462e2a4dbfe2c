"""Parameters, and the flat buffer in which the parameters of a net lie.

A `Parameter` is a name for memory, not an array: the memory moves into one flat buffer when the net is
first used, and moves again when a bigger net takes the module in. Whoever has bound addresses compares
`storage_epoch` to learn that some parameter somewhere has moved, and `structure_epoch` to learn that some
net somewhere may have been changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcore import _core
from gvcore._settings import MOST, boolean, integer
from gvcore.data import as_array
from gvcore.nn.init import Initialiser, get, zeros
from gvcore.seeding import as_seed

__all__ = ["Parameter", "changed", "flatten", "storage_epoch", "structure_epoch"]

_ALIGNMENT = 64  # bytes: each parameter begins on a cache line

_epoch = 0


def storage_epoch() -> int:
    """Return a number that changes whenever a parameter or a buffer of any net gets other memory."""
    return _epoch


def moved() -> None:
    """Say that some parameter or buffer has other memory from now on."""
    global _epoch
    _epoch += 1


_structure = 0


def structure_epoch() -> int:
    """Return a number that changes whenever an attribute of any module is set, or a parameter is frozen."""
    return _structure


def changed() -> None:
    """Say that the structure of some net may be another from now on."""
    global _structure
    _structure += 1


class _Given:
    """The initialiser of a parameter made from values: `reset_parameters` gives it these again."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values

    def __call__(self, out: NDArray[Any], *, seed: int, site: int) -> None:
        out[...] = self._values


class Parameter:
    """An array that is trained.

    Set it as an attribute of a `Module` in ``__init__`` and use it in ``forward`` with ``+ - * @`` or
    `gvcore.functional.linear`. In ``+ - *`` it broadcasts over the batch and the axes behind it, and has no
    more axes than the value has behind the batch.

    Parameters
    ----------
    data : array_like, optional
        First values, copied. float64 if it is an array or a NumPy scalar of that dtype; float32 else, from
        lists and Python's numbers too.
    shape : sequence of int, optional
        Instead of `data`, with `init`: the values are drawn when they are first looked at.
    init : str or callable, optional
        A name, or ``init(out, *, seed, site)``, which fills `out`; see `gvcore.nn.init`. Zeros by default.
        With `data`, what `Module.reset_parameters` draws from instead of giving these values again.
    seed : int, numpy.random.SeedSequence or None
        Of the first values.
    site : int, default 0
        Keeps parameters with one seed apart.
    requires_grad : bool, default True
        Whether it is trained; see also `Module.freeze`.

    Raises
    ------
    TypeError, ValueError
        Names the argument that is of the wrong kind or out of range: if `data` is not numeric, makes no array
        or does not fit into float32; if neither `data` nor `shape` is given, or both. Where there is no
        memory of such a size, when the values are first looked at; the seed then, too.

    Examples
    --------
    >>> import numpy as np
    >>> Parameter(np.ones(3)).shape
    (3,)
    """

    __slots__ = ("_data", "_dtype", "_init", "_requires_grad", "_seed", "_shape", "_site")

    def __init__(
        self,
        data: Any = None,
        *,
        shape: Sequence[int] | None = None,
        init: str | Initialiser | None = None,
        seed: int | np.random.SeedSequence | None = None,
        site: int = 0,
        requires_grad: bool = True,
    ) -> None:
        op = "Parameter"
        self._requires_grad = boolean(op, "requires_grad", requires_grad)
        self._init: Initialiser = zeros() if init is None else get(init)
        self._seed = seed
        self._site = integer(op, "site", site, bits=32)
        self._data: NDArray[Any] | None = None
        self._dtype: np.dtype[Any] = np.dtype(np.float32)
        if (data is None) == (shape is None):
            raise TypeError(f"[{op}] expected data or shape, got {'neither' if data is None else 'both'}")
        if shape is not None:
            if isinstance(shape, str) or not isinstance(shape, Iterable):
                raise TypeError(f"[{op}] expected shape to be a sequence of integers, got {shape!r}")
            self._shape = tuple(integer(op, f"shape[{i}]", n, bits=63) for i, n in enumerate(shape))
            return
        array = as_array(op, "data", data)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"[{op}] expected data to be an array of real numbers, got {array.dtype}")
        # What NumPy makes of a list is nobody's choice.
        if array.dtype.newbyteorder("=") == np.float64 and hasattr(data, "dtype"):
            self._dtype = np.dtype(np.float64)
        self._shape = tuple(array.shape)
        values = _core.zeros(array.size, self._dtype).reshape(array.shape)
        with np.errstate(all="ignore"):
            values[...] = array
        if array.dtype.kind == "f" and array.itemsize > values.itemsize:
            beyond = np.isinf(values) & np.isfinite(array)
            if beyond.any():
                raise ValueError(
                    f"[{op}] expected data in the range of {self._dtype}, got {array[beyond][0]:g}; an array "
                    "of float64 makes a parameter of float64"
                )
        self._data = values
        if init is None:
            self._init = _Given(values.copy())

    @property
    def requires_grad(self) -> bool:
        """Whether it is trained; may be set."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self._requires_grad = boolean("Parameter", "requires_grad", value)
        changed()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self._shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self._dtype

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self._shape)

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._shape)

    @property
    def data(self) -> NDArray[Any]:
        """The values, as a view: writing to it between calls changes the net, until the parameter moves.

        `Module.parameters` says when that is; its first call moves all parameters of the net.
        """
        if self._data is None:
            if self.size * self._dtype.itemsize > MOST:
                raise ValueError(f"[Parameter] expected a shape of less than 2**63 bytes, got {self._shape}")
            drawn = _core.zeros(self.size, self._dtype).reshape(self._shape)
            self._init(drawn, seed=as_seed(self._seed), site=self._site)
            self._data = drawn
            moved()
        return self._data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            return self.data if dtype is None else self.data.astype(dtype, copy=False)
        return np.array(self.data, dtype=dtype)

    def __repr__(self) -> str:
        return f"Parameter(shape={self._shape}, dtype={self._dtype}, requires_grad={self.requires_grad})"

    def suit(self, init: Initialiser) -> None:
        """Draw from `init` when the values are first looked at, if that has not happened."""
        if self._data is None:
            self._init = init

    def reset(self, seed: int, site: int) -> None:
        """Draw the values anew, in place if they have memory."""
        self._seed, self._site = seed, site
        if self._data is not None:
            if self._data.flags.c_contiguous and self._data.flags.writeable:
                self._init(self._data, seed=seed, site=site)
            else:  # cannot happen to memory that this class made
                raise ValueError("[reset_parameters] expected writeable, contiguous memory")

    def place(self, memory: NDArray[Any]) -> None:
        """Move the values into `memory`, of the same shape, converting their dtype."""
        memory[...] = self.data
        self._data = memory
        self._dtype = memory.dtype
        moved()

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        copy = Parameter(self.data, init=self._init, requires_grad=self.requires_grad)
        memo[id(self)] = copy
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (np.array(self.data), self._init, self.requires_grad)


def _restore(data: NDArray[Any], init: Initialiser, requires_grad: bool) -> Parameter:
    return Parameter(data, init=init, requires_grad=requires_grad)


def flatten(parameters: Sequence[Parameter], dtype: np.dtype[Any] | None = None) -> None:
    """Put the parameters into one flat buffer, one after the other, unless they lie in one already.

    With `dtype` they are converted and move in any case; earlier views are detached.
    """
    if not parameters:
        return
    if dtype is None:
        bases = {id(_root(p.data)) for p in parameters}
        if len(bases) == 1 and len(parameters) > 1:
            return
        if len(parameters) == 1:
            return
        dtype = parameters[0].dtype
    per_line = _ALIGNMENT // np.dtype(dtype).itemsize
    starts, end = [], 0
    for p in parameters:
        starts.append(end)
        end += -(-p.size // per_line) * per_line
    flat = _core.zeros(end, dtype)
    for p, start in zip(parameters, starts, strict=True):
        p.place(flat[start : start + p.size].reshape(p.shape))


def _root(array: NDArray[Any]) -> NDArray[Any]:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array
