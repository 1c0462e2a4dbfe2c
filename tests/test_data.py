"""Splits and seeds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from gvcore.data import train_test_split
from gvcore.seeding import as_seed


def test_order_of_results_is_that_of_scikit_learn() -> None:
    x, y, z = np.arange(20).reshape(10, 2), np.arange(10), [str(i) for i in range(10)]
    parts = train_test_split(x, y, z, test_size=0.3, seed=1)
    assert [len(part) for part in parts] == [7, 3] * 3
    x_train, x_test, y_train, y_test, z_train, z_test = parts
    assert np.array_equal(x_train[:, 0], 2 * y_train) and np.array_equal(x_test[:, 0], 2 * y_test)
    assert [int(s) for s in z_train] == y_train.tolist() and [int(s) for s in z_test] == y_test.tolist()
    assert sorted([*y_train, *y_test]) == list(range(10))


@pytest.mark.parametrize(
    ("rows", "test_size", "expected"),
    [
        (10, 0.2, 2),
        (10, 0.25, 3),
        (11, 0.2, 3),
        (2, 0.5, 1),
        (2, 0.01, 1),
        (10, 1, 1),
        (10, 9, 9),
        (10, 0.9, 9),
    ],
)
def test_size_of_the_test_part(rows: int, test_size: float, expected: int) -> None:
    train, test = train_test_split(np.arange(rows), test_size=test_size, seed=0)
    assert (len(train), len(test)) == (rows - expected, expected)


def test_the_seed_decides() -> None:
    rows = np.arange(1000)
    first = train_test_split(rows, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(first, train_test_split(rows, seed=3), strict=True))
    assert not np.array_equal(first[1], train_test_split(rows, seed=4)[1])
    assert not np.array_equal(train_test_split(rows)[1], train_test_split(rows)[1])
    sequence = np.random.SeedSequence(5)
    assert np.array_equal(train_test_split(rows, seed=sequence)[1], train_test_split(rows, seed=sequence)[1])


def test_results_are_copies_with_the_dtype_given(tmp_path: Path) -> None:
    stored = np.memmap(tmp_path / "x", dtype=np.float32, mode="w+", shape=(10, 3))
    stored[:] = np.arange(30).reshape(10, 3)
    train, test = train_test_split(stored, seed=0)
    assert train.dtype == np.float32 and not np.shares_memory(train, stored)
    train[:], test[:] = 0, 0
    assert np.array_equal(stored, np.arange(30).reshape(10, 3))


def test_strided_and_read_only_rows() -> None:
    x = np.arange(40).reshape(10, 4)[::-1, ::2]
    x.flags.writeable = False
    train, test = train_test_split(x, seed=0)
    assert sorted(map(tuple, np.concatenate((train, test)))) == sorted(map(tuple, x))


def test_stratified_parts_have_the_same_shares() -> None:
    y = np.repeat([2, 5, 9], [60, 30, 10])
    rows = np.arange(100)
    y_train, y_test, rows_train, rows_test = train_test_split(y, rows, test_size=0.2, seed=0, stratify=y)
    assert Counter(y_test.tolist()) == {2: 12, 5: 6, 9: 2}
    assert Counter(y_train.tolist()) == {2: 48, 5: 24, 9: 8}
    assert np.array_equal(y[rows_test], y_test) and np.array_equal(y[rows_train], y_train)
    assert sorted([*rows_train, *rows_test]) == list(range(100))
    assert not np.array_equal(rows_test, np.sort(rows_test)), "rows of the test part are shuffled"


def test_stratify_takes_largest_remainders_and_any_labels() -> None:
    # Shares of 5 test rows among 7 + 4 + 3 of 14: 2.5, 1.43, 1.07. The extra row goes to the first.
    y = np.array(list("aaaaaaabbbbccc"))
    _, y_test = train_test_split(y, test_size=5, seed=0, stratify=y.tolist())
    assert Counter(y_test.tolist()) == {"a": 3, "b": 1, "c": 1}


@pytest.mark.parametrize("test_size", [3, 4])
def test_stratified_parts_may_hold_one_row_of_each_class(test_size: int) -> None:
    y = np.array([0, 0, 1, 1, 2, 2, 2])
    parts = train_test_split(y, test_size=test_size, seed=0, stratify=y)
    assert [set(part.tolist()) for part in parts] == [{0, 1, 2}] * 2
    assert len(parts[1]) == test_size


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ([], {}, TypeError, "at least one array"),
        ([np.arange(3), np.arange(4)], {}, ValueError, "same length, got 3, 4"),
        ([np.float64(3)], {}, TypeError, "got a scalar as argument 0"),
        ([np.arange(10)], {"test_size": 0.0}, ValueError, "expected test_size .* > 0 and < 1, got 0.0"),
        ([np.arange(10)], {"test_size": 1.0}, ValueError, "expected test_size"),
        ([np.arange(10)], {"test_size": np.nan}, ValueError, "expected test_size"),
        ([np.arange(10)], {"test_size": 0}, ValueError, "expected test_size"),
        ([np.arange(10)], {"test_size": 10}, ValueError, "leave rows in both parts, .* 10 of 10 rows"),
        ([np.arange(10)], {"test_size": 0.95}, ValueError, "leave rows in both parts"),
        ([np.arange(1)], {}, ValueError, "leave rows in both parts"),
        ([np.arange(0)], {}, ValueError, "leave rows in both parts"),
        ([np.arange(10)], {"test_size": True}, TypeError, "expected test_size"),
        ([np.arange(10)], {"test_size": "0.2"}, TypeError, "expected test_size"),
        ([np.arange(10)], {"seed": 1.5}, TypeError, "seed"),
        ([np.arange(4)], {"stratify": [0, 0, 0]}, ValueError, r"stratify of shape \(4,\), got \(3,\)"),
        (
            [np.arange(4)],
            {"stratify": [0, 0, None, 1]},
            TypeError,
            "stratify to hold labels that can be sorted, got NoneType, int",
        ),
        ([np.arange(4)], {"stratify": [0, 0, [1], 1]}, ValueError, "stratify to be an array"),
        (
            [np.arange(4)],
            {"stratify": [0, 0, 0, 1]},
            ValueError,
            "at least 2 rows of every class .* got 1 of 1",
        ),
        (
            [np.arange(6)],
            {"stratify": [0, 0, 1, 1, 2, 2], "test_size": 2},
            ValueError,
            "each of the 3 classes",
        ),
        (
            [np.arange(6)],
            {"stratify": [0, 0, 1, 1, 2, 2], "test_size": 4},
            ValueError,
            "each of the 3 classes in both parts, got 2 training and 4 test rows",
        ),
    ],
)
def test_bad_input_is_named(arrays, options, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        train_test_split(*arrays, **options)


# ---- seeds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1, np.int32(7), np.uint64(2**64 - 1)])
def test_an_int_is_its_own_key(seed: int) -> None:
    assert as_seed(seed) == int(seed)
    assert type(as_seed(seed)) is int


def test_a_seed_sequence_gives_one_key_and_stays_as_it_is() -> None:
    sequence = np.random.SeedSequence(12)
    key = as_seed(sequence)
    assert key == as_seed(sequence) == as_seed(np.random.SeedSequence(12))
    assert 0 <= key < 2**64 and key != as_seed(np.random.SeedSequence(13))
    children = np.random.SeedSequence(12).spawn(2)
    assert as_seed(children[0]) != as_seed(children[1])


def test_none_is_fresh_entropy() -> None:
    assert len({as_seed(None) for _ in range(10)}) == 10


def test_the_global_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
    as_seed(None)
    train_test_split(np.arange(10))
    assert np.array_equal(before, np.random.get_state()[1])  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("seed", [True, np.True_, 1.0, "1", [1], np.random.default_rng(0)])
def test_a_seed_of_another_kind_is_refused(seed: object) -> None:
    with pytest.raises(TypeError, match=r"\[seed\] expected an int"):
        as_seed(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=r"\[seed\] expected an int in"):
        as_seed(seed)
