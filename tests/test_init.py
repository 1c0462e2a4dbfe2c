"""Initialisers: their moments, their orthogonality, and that the seed and the site alone decide."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest

from gvcore.nn import init
from gvcore.nn.householder import orthonormal

SHAPE = (400, 600)
ROOT2 = 2**0.5


def draw(initialiser, shape=SHAPE, dtype=np.float64, seed=0, site=0):  # type: ignore[no-untyped-def]
    out = np.full(shape, np.nan, dtype=dtype)
    assert initialiser(out, seed=seed, site=site) is None
    return out


NORMAL = [
    (init.kaiming_normal(), ROOT2 / 600**0.5),
    (init.kaiming_normal(mode="fan_out"), ROOT2 / 400**0.5),
    (init.kaiming_normal("tanh"), 5 / 3 / 600**0.5),
    (init.kaiming_normal("leaky_relu", negative_slope=1.0), 1 / 600**0.5),
    (init.xavier_normal(), (2 / 1000) ** 0.5),
    (init.xavier_normal(gain=3), 3 * (2 / 1000) ** 0.5),
    (init.lecun_normal(), 1 / 600**0.5),
]
UNIFORM = [
    (init.kaiming_uniform(), ROOT2 * (3 / 600) ** 0.5),
    (init.kaiming_uniform("identity", mode="fan_out"), (3 / 400) ** 0.5),
    (init.xavier_uniform(), (6 / 1000) ** 0.5),
]
RANDOM = [case[0] for case in NORMAL + UNIFORM]


@pytest.mark.parametrize(("initialiser", "std"), NORMAL, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_of_normal_numbers(initialiser, std, dtype) -> None:  # type: ignore[no-untyped-def]
    z = draw(initialiser, dtype=dtype).astype(np.float64) / std
    n = z.size  # bounds: five standard errors of each moment of n standard normal numbers
    assert abs(z.mean()) < 5 / n**0.5
    assert abs((z**2).mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs((z**3).mean()) < 5 * (15 / n) ** 0.5
    assert abs((z**4).mean() - 3) < 5 * (96 / n) ** 0.5


@pytest.mark.parametrize(("initialiser", "bound"), UNIFORM, ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_moments_of_uniform_numbers(initialiser, bound, dtype) -> None:  # type: ignore[no-untyped-def]
    u = draw(initialiser, dtype=dtype).astype(np.float64) / bound
    n = u.size
    assert abs(u).max() <= 1 + 1e-6 and abs(u).max() > 1 - 1e-3
    assert abs(u.mean()) < 5 * (1 / 3 / n) ** 0.5
    assert abs((u**2).mean() - 1 / 3) < 5 * (4 / 45 / n) ** 0.5


@pytest.mark.parametrize("initialiser", [*RANDOM, init.orthogonal()], ids=repr)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_seed_and_site_decide(initialiser, dtype) -> None:  # type: ignore[no-untyped-def]
    first = draw(initialiser, (30, 20), dtype, seed=1, site=2)
    assert first.tobytes() == draw(initialiser, (30, 20), dtype, seed=1, site=2).tobytes()
    for seed, site in ((2, 2), (1, 3), (2**64 - 1, 2)):
        other = draw(initialiser, (30, 20), dtype, seed=seed, site=site)
        assert np.mean(first == other) < 0.1


@pytest.mark.parametrize("initialiser", [*RANDOM, init.orthogonal()], ids=repr)
@pytest.mark.parametrize("shape", [(3,), ()])
def test_fans_need_two_axes(initialiser, shape) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"expected a shape \(fan_out, fan_in, \.\.\.\)"):
        draw(initialiser, shape)


@pytest.mark.parametrize("initialiser", [*RANDOM, init.orthogonal(), init.zeros()], ids=repr)
def test_empty_parameters(initialiser) -> None:  # type: ignore[no-untyped-def]
    for shape in ((0, 3), (3, 0), (0, 0)):
        assert draw(initialiser, shape).shape == shape


def test_trailing_axes_count_as_a_field() -> None:
    z = draw(init.lecun_normal(), (100, 30, 20))
    assert z.std() == pytest.approx(1 / 600**0.5, rel=0.03)
    z = draw(init.kaiming_normal(mode="fan_out"), (100, 30, 20))
    assert z.std() == pytest.approx(ROOT2 / 2000**0.5, rel=0.03)


# ---- orthogonal ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 5), (9, 4), (4, 9), (64, 33), (4, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_orthogonal(shape, dtype) -> None:  # type: ignore[no-untyped-def]
    w = draw(init.orthogonal(gain=1.5), shape, dtype).astype(np.float64).reshape(shape[0], -1)
    short = w if w.shape[0] <= w.shape[1] else w.T
    # Q of Householder is orthogonal to a small multiple of u; storing it rounds each product's factors.
    tolerance = 10 * max(short.shape) * np.finfo(dtype).eps
    assert np.allclose(short @ short.T, 1.5**2 * np.eye(len(short)), rtol=0, atol=tolerance)


def test_orthogonal_of_float32_is_that_of_float64_rounded() -> None:
    narrow, broad = (draw(init.orthogonal(), (20, 10), dtype) for dtype in (np.float32, np.float64))
    assert np.array_equal(narrow, broad.astype(np.float32))


def test_orthogonal_against_lapack() -> None:
    a = np.random.default_rng(0).standard_normal((40, 25))
    q, r = np.linalg.qr(a)
    expected = q * np.sign(np.diag(r))
    assert np.allclose(orthonormal(a.copy()), expected, rtol=0, atol=1e-13)


def test_orthogonal_is_uniform_over_signs_and_places() -> None:
    # The mean over many draws of a Haar matrix is 0 and that of its squares 1/n.
    q = np.stack([draw(init.orthogonal(), (4, 4), seed=seed) for seed in range(2000)])
    assert abs(q.mean(axis=0)).max() < 5 * (0.25 / 2000) ** 0.5
    assert abs((q**2).mean(axis=0) - 0.25).max() < 5 * (2 / 3 / 16 * 1.5 / 2000) ** 0.5


def test_orthonormal_of_a_zero_or_dependent_column_stays_orthogonal() -> None:
    a = np.zeros((5, 3))
    a[:, 2] = 1.0
    q = orthonormal(a)
    assert np.allclose(q.T @ q, np.eye(3), atol=1e-14)


def test_orthonormal_has_the_same_bits_everywhere() -> None:
    # A digest of this matrix's Q, the same with and without the vector units that NumPy knows.
    q = orthonormal((np.arange(77 * 40) ** 2 % 101 - 50.0).reshape(77, 40))
    assert hashlib.sha256(q.astype("<f8").tobytes()).hexdigest()[:16] == "5162a9fefca6b42e"


# ---- the rest -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constants(dtype) -> None:  # type: ignore[no-untyped-def]
    assert draw(init.zeros(), (3,), dtype).tolist() == [0.0] * 3
    assert draw(init.ones(), (3,), dtype).tolist() == [1.0] * 3
    assert draw(init.constant(0.5), (2, 2), dtype).tolist() == [[0.5] * 2] * 2


@pytest.mark.parametrize("initialiser", [*RANDOM, init.orthogonal(), init.constant(1.0)], ids=repr)
def test_initialisers_are_frozen_values(initialiser) -> None:  # type: ignore[no-untyped-def]
    copied = pickle.loads(pickle.dumps(initialiser))
    assert copied == initialiser and hash(copied) == hash(initialiser)


def test_get() -> None:
    for name in ("kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform", "lecun_normal"):
        assert init.get(name) == getattr(init, name)() == init.get(getattr(init, name))
    assert init.get("zeros") == init.zeros() and init.get("ones") == init.ones()
    assert init.get("orthogonal") == init.orthogonal()
    made = init.constant(2.0)
    assert init.get(made) is made

    def own(out: np.ndarray, *, seed: int, site: int) -> None:
        out[...] = seed + site

    assert init.get(own) is own
    with pytest.raises(ValueError, match=r"\[init\] expected init to be one of 'kaiming_normal', .*got 'he'"):
        init.get("he")
    for wrong in (3, None, init.constant, dict):
        with pytest.raises(TypeError, match=r"\[init\] expected a name or an initialiser"):
            init.get(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        *(
            (name, init.kaiming_normal())
            for name in ("relu", "leaky_relu", "elu", "gelu", "silu", "softplus")
        ),
        *((name, init.xavier_normal()) for name in ("tanh", "sigmoid")),
        *((name, init.lecun_normal()) for name in ("selu", "identity", None)),
    ],
)
def test_default(activation, expected) -> None:  # type: ignore[no-untyped-def]
    assert init.default_for(activation) == expected


@pytest.mark.parametrize("make", [init.default_for, init.calculate_gain, init.kaiming_normal])
def test_unknown_activations_are_named(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="got 'swishy'"):
        make("swishy")


@pytest.mark.parametrize(
    "make",
    [
        lambda: init.kaiming_normal(mode="fan_avg"),
        lambda: init.kaiming_uniform(negative_slope=np.nan),
        lambda: init.xavier_normal(gain=-1),
        lambda: init.orthogonal(gain=np.inf),
        lambda: init.constant(np.nan),
    ],
)
def test_bad_settings_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="expected"):
        make()


def test_gains_are_those_of_pytorch() -> None:
    expected = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": ROOT2, "selu": 0.75}
    assert {name: init.calculate_gain(name) for name in expected} == expected
    assert init.calculate_gain("leaky_relu", 0.2) == pytest.approx((2 / 1.04) ** 0.5)
