"""Turn what a caller passes as ``seed=`` into the 64-bit key of the random-number generator.

No random number is drawn here: the generator is Philox in C++ (Salmon et al. 2011), whose output
depends on (seed, site, step, index) alone. Names below keep the sites of different uses apart.
"""

from __future__ import annotations

import numbers

import numpy as np

__all__ = ["SPLIT_SITE", "as_seed"]

# A site is the second half of the key. Initialisers use the parameter's position in name order and
# the executor counts from 0 as well, so these lie far above any such count.
SPLIT_SITE = 0x53504C54


def as_seed(seed: int | np.random.SeedSequence | None) -> int:
    """Return the unsigned 64-bit key for `seed`.

    Parameters
    ----------
    seed : int, numpy.random.SeedSequence or None
        An int in [0, 2**64) is its own key. A ``SeedSequence`` gives the first 64-bit word of its
        state, which leaves the sequence as it was. None asks the operating system for fresh entropy.

    Returns
    -------
    int
        In [0, 2**64).

    Raises
    ------
    TypeError
        If `seed` is of another kind (bool and float included).
    ValueError
        If an int lies outside [0, 2**64).

    Notes
    -----
    NumPy's global random state is neither read nor changed.

    Examples
    --------
    >>> as_seed(7)
    7
    >>> import numpy as np
    >>> as_seed(np.random.SeedSequence(7)) == as_seed(np.random.SeedSequence(7))
    True
    """
    if seed is None:
        seed = np.random.SeedSequence()
    if isinstance(seed, np.random.SeedSequence):
        return int(seed.generate_state(1, np.uint64)[0])
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise TypeError(f"[seed] expected an int, a numpy.random.SeedSequence or None, got {seed!r}")
    number = int(seed)
    if not 0 <= number < 2**64:
        raise ValueError(f"[seed] expected an int in [0, 2**64), got {number}")
    return number
