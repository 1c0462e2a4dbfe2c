"""The optimisers as settings: what they accept, what they refuse, and how groups are applied."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from gvcore import optim, schedules

NAMES = ["0.weight", "0.bias", "1.layers.0.weight", "1.layers.0.bias"]


def test_defaults_are_those_of_pytorch() -> None:
    sgd = optim.SGD(lr=0.1)
    assert (sgd.momentum, sgd.dampening, sgd.weight_decay, sgd.nesterov) == (0.0, 0.0, 0.0, False)
    adam, adamw = optim.Adam(lr=0.1), optim.AdamW(lr=0.1)
    assert (adam.betas, adam.eps, adam.weight_decay) == ((0.9, 0.999), 1e-8, 0.0)
    assert (adamw.betas, adamw.eps, adamw.weight_decay) == ((0.9, 0.999), 1e-8, 0.01)


def test_native_description() -> None:
    assert optim.SGD(lr=0.1, momentum=0.9, nesterov=True).native() == {
        "kind": "sgd",
        "momentum": 0.9,
        "dampening": 0.0,
        "nesterov": True,
    }
    assert optim.Adam(lr=0.1).native()["decoupled"] is False
    assert optim.AdamW(lr=0.1, betas=[0.8, 0.9]).native() == {  # type: ignore[arg-type]
        "kind": "adam",
        "betas": (0.8, 0.9),
        "eps": 1e-8,
        "decoupled": True,
    }


@pytest.mark.parametrize("make", [optim.SGD, optim.Adam, optim.AdamW])
def test_settings_are_frozen_values(make: type[optim.SGD]) -> None:
    settings = make(lr=schedules.cosine(0.1), groups=[{"match": "*.bias", "weight_decay": 0}])
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(AttributeError):
        settings.lr = 0.2  # type: ignore[misc]
    with pytest.raises(TypeError):
        make(0.1)  # type: ignore[misc]


def test_groups_are_copied() -> None:
    group = {"match": "*.bias", "weight_decay": 0.5}
    settings = optim.SGD(lr=0.1, groups=[group])
    group["weight_decay"] = 7.0
    assert settings.resolve(NAMES)[1] == (1.0, 0.5)


def test_rate_of_a_step() -> None:
    assert optim.SGD(lr=1).lr_at(10) == 1.0
    assert optim.SGD(lr=schedules.linear(1.0, 4)).lr_at(3) == 0.25
    assert optim.SGD(lr=lambda step: 1.0 / (1 + step)).lr_at(3) == 0.25


def test_length_is_filled_into_the_schedule() -> None:
    settings = optim.AdamW(lr=schedules.linear(1.0), eps=1e-6)
    assert settings.needs_total_steps
    with pytest.raises(ValueError, match="total_steps"):
        settings.lr_at(0)
    filled = settings.with_total_steps(4)
    assert isinstance(filled, optim.AdamW) and filled.eps == 1e-6 and filled.lr_at(1) == 0.75
    assert not filled.needs_total_steps and filled.with_total_steps(9) is filled
    for lr in (0.1, lambda step: 0.1):
        settings = optim.AdamW(lr=lr)
        assert settings.with_total_steps(4) is settings and not settings.needs_total_steps


@pytest.mark.parametrize("rate", [-1.0, math.nan, math.inf])
def test_a_schedule_that_returns_nonsense_is_named_with_the_step(rate: float) -> None:
    settings = optim.SGD(lr=lambda step: rate if step == 3 else 0.1)
    assert settings.lr_at(2) == 0.1
    with pytest.raises(ValueError, match=r"\[SGD\] expected the schedule to give .* at step 3"):
        settings.lr_at(3)


@pytest.mark.parametrize("rate", ["0.1", None, np.array([0.1]), [0.1], 1j])
def test_a_schedule_that_returns_no_number_is_named_with_the_step(rate: object) -> None:
    settings = optim.SGD(lr=lambda step: rate)  # type: ignore[arg-type, return-value]
    with pytest.raises(TypeError, match=r"\[SGD\] expected the schedule to return a number at step 3, got "):
        settings.lr_at(3)


@pytest.mark.parametrize("rate", [np.float32(0.5), np.array(0.5), np.float16(0.5)])
def test_a_schedule_may_return_any_scalar(rate: object) -> None:
    assert optim.SGD(lr=lambda step: rate).lr_at(0) == 0.5  # type: ignore[arg-type, return-value]


def test_no_groups() -> None:
    assert optim.SGD(lr=0.1, weight_decay=0.5).resolve(NAMES) == [(1.0, 0.5)] * 4
    assert optim.SGD(lr=0.1).resolve([]) == []


def test_the_last_matching_group_wins_for_each_setting() -> None:
    settings = optim.SGD(
        lr=0.1,
        weight_decay=0.5,
        groups=[
            {"match": "*.bias", "weight_decay": 0.0},
            {"match": "1.*", "lr_scale": 0.1},
            {"match": "1.layers.0.bias", "lr_scale": 3, "weight_decay": 0.25},
        ],
    )
    assert settings.resolve(NAMES) == [(1.0, 0.5), (1.0, 0.0), (0.1, 0.5), (3.0, 0.25)]
    reverse = optim.SGD(
        lr=0.1, groups=[{"match": "0.bias", "lr_scale": 2.0}, {"match": "*", "lr_scale": 1.0}]
    )
    assert reverse.resolve(NAMES) == [(1.0, 0.0)] * 4


def test_case_counts_in_a_pattern() -> None:
    with pytest.raises(ValueError, match="match"):
        optim.SGD(lr=0.1, groups=[{"match": "*.BIAS"}]).resolve(NAMES)


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    settings = optim.SGD(lr=0.1, groups=[{"match": "*.bias"}, {"match": "*.gamma"}])
    with pytest.raises(ValueError, match=r"\[SGD\] expected groups\[1\] to match .* '\*\.gamma'.* 0\.weight"):
        settings.resolve(NAMES)


BAD = [
    (
        optim.SGD,
        {"lr": -1.0},
        ValueError,
        r"\[SGD\] expected lr to be a finite number >= 0 or a schedule, got -1.0",
    ),
    (optim.SGD, {"lr": math.nan}, ValueError, r"\[SGD\] expected lr .*, got nan"),
    (optim.SGD, {"lr": "0.1"}, TypeError, r"\[SGD\] expected lr .* or a schedule, got '0.1'"),
    (optim.SGD, {"lr": True}, TypeError, r"\[SGD\] expected lr .*, got True"),
    (optim.SGD, {"momentum": 1.5}, ValueError, r"\[SGD\] expected momentum .* >= 0 and <= 1, got 1.5"),
    (optim.SGD, {"dampening": -0.1}, ValueError, r"\[SGD\] expected dampening"),
    (optim.SGD, {"weight_decay": -0.1}, ValueError, r"\[SGD\] expected weight_decay"),
    (optim.SGD, {"nesterov": 1}, TypeError, r"\[SGD\] expected nesterov to be True or False, got 1"),
    (optim.SGD, {"nesterov": True}, ValueError, r"\[SGD\] expected momentum > 0 and dampening = 0"),
    (
        optim.SGD,
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
        ValueError,
        r"\[SGD\] expected momentum > 0 and dampening = 0",
    ),
    (optim.Adam, {"betas": (0.9, 1.0)}, ValueError, r"\[Adam\] expected betas\[1\] .* < 1, got 1"),
    (optim.Adam, {"betas": (0.9,)}, ValueError, r"\[Adam\] expected betas to be a pair"),
    (optim.Adam, {"betas": 0.9}, TypeError, r"\[Adam\] expected betas to be a pair"),
    (optim.AdamW, {"eps": -1e-8}, ValueError, r"\[AdamW\] expected eps"),
    (optim.AdamW, {"weight_decay": math.inf}, ValueError, r"\[AdamW\] expected weight_decay"),
    (optim.AdamW, {"groups": {"match": "*"}}, TypeError, r"\[AdamW\] expected groups to be a list of dicts"),
    (optim.AdamW, {"groups": ["*"]}, TypeError, r"\[AdamW\] expected groups\[0\] to be a dict"),
    (optim.AdamW, {"groups": [{"weight_decay": 0}]}, TypeError, r"\[AdamW\] expected groups\[0\] .*'match'"),
    (optim.AdamW, {"groups": [{"match": "*", "lr": 1}]}, ValueError, r"groups\[0\] to have keys .*'lr'"),
    (
        optim.AdamW,
        {"groups": [{"match": "*", "lr_scale": -1}]},
        ValueError,
        r"\[AdamW\] expected groups\[0\]\['lr_scale'\] to be a finite number >= 0, got -1",
    ),
]


@pytest.mark.parametrize(("make", "arguments", "error", "message"), BAD)
def test_bad_settings_are_named(make, arguments, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        make(**{"lr": 0.1, **arguments})


def test_a_rate_is_required_for_sgd() -> None:
    with pytest.raises(TypeError):
        optim.SGD()  # type: ignore[call-arg]
