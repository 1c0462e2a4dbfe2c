"""Schedules against values worked out by hand, at the edges of every phase."""

from __future__ import annotations

import copy
import hashlib
import math
import pickle

import numpy as np
import pytest

from gvcore import schedules
from gvcore.schedules.exact import cos_pi, power

# schedule, {step: rate}. T = 8, warm-up W = 4 where there is one: steps 0, 1, W - 1, W, T - 1, T, T + 1.
ROOT = math.sqrt(0.5)
HAND = [
    (schedules.constant(0.3), {0: 0.3, 1: 0.3, 10**9: 0.3}),
    (schedules.exponential(0.8, 0.5), {0: 0.8, 1: 0.4, 2: 0.2, 3: 0.1}),
    (schedules.exponential(0.8, 0.5, every=3), {0: 0.8, 2: 0.8, 3: 0.4, 5: 0.4, 6: 0.2}),
    (schedules.linear(0.8, 8), {0: 0.8, 1: 0.7, 7: 0.1, 8: 0.0, 9: 0.0}),
    (schedules.linear(0.8, 8, end=0.4), {0: 0.8, 1: 0.75, 7: 0.45, 8: 0.4, 9: 0.4}),
    (schedules.linear(0.1, 10, end=0.2), {0: 0.1, 1: 0.11, 9: 0.19, 10: 0.2, 11: 0.2}),
    (schedules.cosine(1.0, 4), {0: 1.0, 1: (1 + ROOT) / 2, 2: 0.5, 3: (1 - ROOT) / 2, 4: 0.0, 5: 0.0}),
    (schedules.cosine(1.0, 4, end=0.5), {0: 1.0, 2: 0.75, 3: 0.75 - ROOT / 4, 4: 0.5, 5: 0.5}),
    (
        schedules.cosine(1.0, 8, warmup_steps=4),
        {0: 0.0, 1: 0.25, 3: 0.75, 4: 1.0, 5: (1 + ROOT) / 2, 6: 0.5, 7: (1 - ROOT) / 2, 8: 0.0, 9: 0.0},
    ),
    (schedules.polynomial(1.0, 4), {0: 1.0, 1: 0.75, 3: 0.25, 4: 0.0, 5: 0.0}),
    (schedules.polynomial(1.0, 4, power=2), {0: 1.0, 1: 9 / 16, 3: 1 / 16, 4: 0.0, 5: 0.0}),
    (schedules.polynomial(1.0, 4, end=0.5, power=0.5), {0: 1.0, 3: 0.75, 4: 0.5, 5: 0.5}),
    (schedules.step(1.0, 3, gamma=0.5), {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.5, 5: 0.5, 6: 0.25}),
    (schedules.step(1.0, 30), {29: 1.0, 30: 0.1, 60: 0.01}),
    (schedules.step(1.0, milestones=[2, 3], gamma=0.5), {0: 1.0, 1: 1.0, 2: 0.5, 3: 0.25, 99: 0.25}),
    (
        schedules.one_cycle(1.0, 8, pct_start=0.5, div_factor=2, final_div_factor=5),
        {0: 0.5, 1: 0.75 - ROOT / 4, 2: 0.75, 4: 1.0, 6: 0.55, 8: 0.1, 9: 0.1},
    ),
    (schedules.one_cycle(1.0, 10), {0: 0.04, 3: 1.0, 10: 4e-6, 11: 4e-6}),
    (schedules.warmup(0.4, 4), {0: 0.0, 1: 0.1, 3: 0.3, 4: 0.4, 5: 0.4}),
    (schedules.warmup(schedules.linear(0.4, 4), 4), {0: 0.0, 3: 0.3, 4: 0.4, 5: 0.3, 7: 0.1, 8: 0.0, 9: 0.0}),
    (schedules.warmup(0.4, 0), {0: 0.4, 1: 0.4}),
    (
        schedules.join([1.0, schedules.linear(0.8, 2), 0.1], [2, 4]),
        {0: 1.0, 1: 1.0, 2: 0.8, 3: 0.4, 4: 0.1, 5: 0.1},
    ),
]


@pytest.mark.parametrize(("schedule", "expected"), HAND, ids=repr)
def test_values_worked_out_by_hand(schedule: schedules.Schedule, expected: dict[int, float]) -> None:
    for step, rate in expected.items():
        assert schedule(step) == pytest.approx(rate, rel=1e-14, abs=1e-16), step
        assert schedule(np.int64(step)) == schedule(step)
        assert type(schedule(step)) is float


@pytest.mark.parametrize("schedule", [case[0] for case in HAND], ids=repr)
def test_schedules_are_values(schedule: schedules.Schedule) -> None:
    for copied in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert copied == schedule and hash(copied) == hash(schedule)
        assert [copied(t) for t in range(12)] == [schedule(t) for t in range(12)]
    with pytest.raises(AttributeError):
        schedule.lr = 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("schedule", [case[0] for case in HAND], ids=repr)
def test_steps_are_integers_from_zero(schedule: schedules.Schedule) -> None:
    with pytest.raises(ValueError, match=r"expected step to be an integer >= 0, got -1"):
        schedule(-1)
    for step in (0.0, True, "0", None):
        with pytest.raises(TypeError, match="expected step to be an integer"):
            schedule(step)  # type: ignore[arg-type]


OPEN = [
    schedules.linear(0.1),
    schedules.cosine(0.1),
    schedules.cosine(0.1, warmup_steps=2),
    schedules.polynomial(0.1),
    schedules.one_cycle(0.1),
    schedules.warmup(schedules.linear(0.1), 2),
    schedules.join([0.2, schedules.linear(0.1)], [3]),
]


@pytest.mark.parametrize("schedule", OPEN, ids=repr)
def test_an_open_length_is_filled_in(schedule: schedules.Schedule) -> None:
    assert schedule.needs_total_steps
    with pytest.raises(ValueError, match=r"expected total_steps to be known, got None; Trainer\.fit"):
        schedule(5)
    filled = schedule.with_total_steps(10)
    assert not filled.needs_total_steps
    assert schedule.needs_total_steps, "the original must not change"
    assert filled(9) > filled(10) == filled(11)
    assert filled.with_total_steps(20) is filled


def test_an_open_length_is_divided_among_the_parts() -> None:
    assert schedules.warmup(schedules.linear(0.1), 2).with_total_steps(10) == schedules.warmup(
        schedules.linear(0.1, 8), 2
    )
    parts = [schedules.cosine(0.1), schedules.linear(0.2, 3), schedules.linear(0.3)]
    assert schedules.join(parts, [4, 7]).with_total_steps(12) == schedules.join(
        [schedules.cosine(0.1, 4), schedules.linear(0.2, 3), schedules.linear(0.3, 5)], [4, 7]
    )
    nested = schedules.warmup(schedules.join([schedules.linear(0.1), 0.2], [3]), 2)
    assert nested.with_total_steps(9)(2 + 3) == 0.2


@pytest.mark.parametrize(
    "schedule",
    [
        schedules.cosine(0.1, warmup_steps=9),
        schedules.warmup(OPEN[0], 9),
        schedules.join([0.1, OPEN[0]], [9]),
    ],
    ids=repr,
)
def test_a_length_within_the_warm_up_is_an_error(schedule: schedules.Schedule) -> None:
    assert schedule.with_total_steps(10)(10) == 0.0
    with pytest.raises(ValueError, match="expected total_steps > "):
        schedule.with_total_steps(9)


BAD_VALUES = [
    (lambda: schedules.constant(-0.1), r"\[constant\] expected lr to be a finite number >= 0, got -0.1"),
    (lambda: schedules.constant(math.nan), r"\[constant\] expected lr .*, got nan"),
    (lambda: schedules.linear(math.inf), r"\[linear\] expected lr .*, got inf"),
    (lambda: schedules.linear(0.1, end=-1), r"\[linear\] expected end .*, got -1"),
    (lambda: schedules.linear(0.1, 0), r"\[linear\] expected total_steps to be an integer >= 1, got 0"),
    (lambda: schedules.cosine(0.1, 5, warmup_steps=5), r"\[cosine\] expected total_steps > warmup_steps"),
    (lambda: schedules.cosine(0.1, warmup_steps=-1), r"\[cosine\] expected warmup_steps"),
    (lambda: schedules.exponential(0.1, 0.0), r"\[exponential\] expected gamma to be a finite number > 0"),
    (lambda: schedules.exponential(0.1, 0.9, every=0), r"\[exponential\] expected every"),
    (lambda: schedules.polynomial(0.1, power=0), r"\[polynomial\] expected power"),
    (lambda: schedules.step(0.1), r"\[step\] expected either step_size or milestones"),
    (lambda: schedules.step(0.1, 3, milestones=[3]), r"\[step\] expected either step_size or milestones"),
    (lambda: schedules.step(0.1, milestones=[3, 3]), r"\[step\] expected milestones to increase strictly"),
    (lambda: schedules.one_cycle(0.1, pct_start=1.0), r"\[one_cycle\] expected pct_start"),
    (lambda: schedules.one_cycle(0.1, div_factor=0.5), r"\[one_cycle\] expected div_factor"),
    (lambda: schedules.warmup(0.1, -1), r"\[warmup\] expected steps"),
    (lambda: schedules.warmup(-0.1, 1), r"\[warmup\] expected schedule .* or a schedule, got -0.1"),
    (lambda: schedules.join([0.1], [1]), r"\[join\] expected 0 boundaries for 1 schedules, got 1"),
    (lambda: schedules.join([0.1, 0.2], [0]), r"\[join\] expected boundaries\[0\]"),
    (lambda: schedules.linear(0.1).with_total_steps(0), r"\[linear\] expected total_steps"),
]


@pytest.mark.parametrize(("make", "message"), BAD_VALUES)
def test_values_out_of_range_are_named(make, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: schedules.constant("0.1"),
        lambda: schedules.constant(True),
        lambda: schedules.linear(0.1, 3.0),
        lambda: schedules.warmup(lambda step: 0.1, 3),
        lambda: schedules.join([], []),
        lambda: schedules.step(0.1, milestones=3),
    ],
)
def test_values_of_the_wrong_kind_are_type_errors(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError, match="expected"):
        make()


def test_numpy_scalars_are_numbers() -> None:
    assert schedules.linear(np.float32(0.5), np.int32(4)) == schedules.linear(0.5, 4)


def test_cosine_is_exact_where_it_can_be_and_close_elsewhere() -> None:
    assert (cos_pi(0.0), cos_pi(0.5), cos_pi(1.0)) == (1.0, 0.0, -1.0)
    for fraction in np.linspace(0.0, 1.0, 1001):
        # math.pi * fraction is itself off by half an ulp of pi, which the C library's cosine passes on.
        assert cos_pi(fraction) == pytest.approx(math.cos(math.pi * fraction), rel=0, abs=5e-16)


def test_power_agrees_with_the_c_library() -> None:
    for base in (1e-3, 0.3, 0.97, 1.0, 1.01):
        for exponent in (0.0, 1.0, 2.0, 1000.0):
            assert power(base, exponent) == pytest.approx(base**exponent, rel=2.3e-16)
        for exponent in (0.5, 0.9, 2.5, math.pi, 1e-9):
            # At most 64 roots and 64 products, each off by u at most.
            assert power(base, exponent) == pytest.approx(base**exponent, rel=128 * 2**-53)
    assert power(0.0, 0.5) == 0.0
    assert power(0.5, 1e6) == 0.0
    assert power(0.5, 1e-300) == 1.0
    assert power(2.0, 1e6) == math.inf


def test_rates_have_the_same_bits_everywhere() -> None:
    curves = [
        schedules.cosine(0.1, 1000, warmup_steps=10),
        schedules.exponential(0.1, 0.99),
        schedules.polynomial(0.1, 1000, power=0.9),
        schedules.one_cycle(0.1, 1000),
    ]
    rates = np.array([curve(t) for curve in curves for t in range(1001)], dtype="<f8")
    assert hashlib.sha256(rates.tobytes()).hexdigest()[:16] == "d5258852d245eb64"
