"""The random numbers under everything: Philox by its published vectors, and what is built on it.

Philox4x32-10: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, whose authors
publish known answers.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import gvcore as gv
from gvcore import _core


def words(count: int, *, seed: int = 0, site: int = 0, step: int = 0) -> list[int]:
    """The 32-bit words behind `count` uniform numbers (w + 1/2) / 2**32."""
    out = np.empty(count)
    _core.uniform(out, seed, site, step=step)
    return [int(u * 2**32) for u in out]


def test_the_published_vector_of_key_and_counter_zero() -> None:
    assert words(4) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("fill", [_core.uniform, _core.normal])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_element_depends_on_its_number_alone(fill, dtype) -> None:
    whole = np.empty(300_001, dtype)
    fill(whole, 7, 3)
    for n in (0, 1, 2, 3, 4, 5, 31, 1000):
        part = np.empty(n, dtype)
        fill(part, 7, 3)
        assert part.tobytes() == whole[:n].tobytes()
    for threads in (1, 2, 3, 7):
        with gv.threads(threads):
            again = np.empty_like(whole)
            fill(again, 7, 3)
            assert again.tobytes() == whole.tobytes()


@pytest.mark.parametrize("fill", [_core.uniform, _core.normal])
def test_float32_is_float64_rounded(fill) -> None:
    single, double = np.empty(5000, np.float32), np.empty(5000)
    fill(single, 1, 2)
    fill(double, 1, 2)
    assert np.array_equal(single, double.astype(np.float32))


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"seed": 1 << 40}, {"site": 1}, {"step": 1}, {"step": 1 << 33}]
)
def test_another_key_is_another_stream(other) -> None:
    assert len({*words(64), *words(64, **other)}) == 128


def test_moments() -> None:
    n = 1_000_000
    u, z = np.empty(n), np.empty(n)
    _core.uniform(u, 5, 0, -1.0, 3.0)
    _core.normal(z, 5, 1, 2.0, 3.0)
    assert u.min() >= -1 and u.max() <= 3
    # five standard errors of mean and variance
    assert abs(u.mean() - 1) < 5 * math.sqrt(16 / 12 / n)
    assert abs(u.var() - 16 / 12) < 5 * (16 / 12) * math.sqrt(0.8 / n)
    assert abs(z.mean() - 2) < 5 * 3 / math.sqrt(n)
    assert abs(z.var() - 9) < 5 * 9 * math.sqrt(2 / n)
    assert abs(((z - 2) ** 4).mean() / 81 - 3) < 5 * math.sqrt(96 / n)
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 5 / math.sqrt(n)


def test_permutations_are_permutations_and_all_of_them_come_up() -> None:
    for n in (0, 1, 2, 3, 100, 4097):
        assert sorted(_core.permutation(n, 3, 0)) == list(range(n))
    assert np.array_equal(_core.permutation(50, 3, 0), _core.permutation(50, 3, 0))
    seen = [tuple(_core.permutation(4, seed, 0)) for seed in range(4800)]
    counts = [seen.count(p) for p in set(seen)]
    assert len(counts) == 24
    # chi-squared with 23 degrees of freedom stays below 60 but once in 20,000
    assert sum((c - 200) ** 2 / 200 for c in counts) < 60


def test_concatenate_and_reshape_on_arrays() -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.ones((2, 2))
    assert np.array_equal(gv.functional.concatenate([a, b], axis=-1), np.concatenate([a, b], axis=-1))
    assert gv.functional.reshape(np.zeros((5, 4, 3), np.float32), (12,)).shape == (5, 12)
    with pytest.raises(ValueError, match=r"\[reshape\]"):
        gv.functional.reshape(a, (7,))
    with pytest.raises((TypeError, ValueError), match=r"\[concatenate\]"):
        gv.functional.concatenate([a, np.ones((3, 2))], axis=-1)
