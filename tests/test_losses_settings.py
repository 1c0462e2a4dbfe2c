"""The loss classes: what they accept, what they pass on, and how the executor sees them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from gvcore import functional, nn

P = np.array([[0.5, -1.0, 2.0], [0.0, 3.0, -2.0]])
Y = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
LABELS = np.array([2, 0])
WEIGHT = [1.0, 2.0, 0.5]

CASES = [
    (nn.MSELoss(), Y, functional.mse_loss, {}),
    (nn.MSELoss(reduction="sum"), Y, functional.mse_loss, {"reduction": "sum"}),
    (nn.L1Loss(), Y, functional.l1_loss, {}),
    (nn.L1Loss("sum"), Y, functional.l1_loss, {"reduction": "sum"}),
    (nn.HuberLoss(), Y, functional.huber_loss, {"delta": 1.0}),
    (nn.HuberLoss(0.3, reduction="sum"), Y, functional.huber_loss, {"delta": 0.3, "reduction": "sum"}),
    (nn.CrossEntropyLoss(), LABELS, functional.cross_entropy, {}),
    (nn.CrossEntropyLoss(), Y, functional.cross_entropy, {}),
    (
        nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.1),
        LABELS,
        functional.cross_entropy,
        {"weight": WEIGHT, "label_smoothing": 0.1},
    ),
    (nn.CrossEntropyLoss(reduction="sum"), LABELS, functional.cross_entropy, {"reduction": "sum"}),
    (nn.BCEWithLogitsLoss(), Y, functional.binary_cross_entropy_with_logits, {}),
    (nn.BCEWithLogitsLoss(WEIGHT), Y, functional.binary_cross_entropy_with_logits, {"pos_weight": WEIGHT}),
    (nn.BCEWithLogitsLoss(2.0), Y, functional.binary_cross_entropy_with_logits, {"pos_weight": [2.0] * 3}),
]


@pytest.mark.parametrize(("loss", "target", "function", "options"), CASES, ids=lambda v: repr(v)[:40])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_is_its_function(loss, target, function, options, dtype) -> None:  # type: ignore[no-untyped-def]
    p = P.astype(dtype)
    typed = {k: np.array(v, dtype) if isinstance(v, list) else v for k, v in options.items()}
    value, gradient = loss(p, target)
    expected, expected_gradient = function(
        p, target if target.dtype.kind == "i" else target.astype(dtype), **typed
    )
    assert type(value) is float and value == expected
    assert gradient.dtype == dtype and gradient.shape == p.shape
    assert gradient.tobytes() == expected_gradient.tobytes()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
def test_labels_of_any_integer_dtype(dtype) -> None:  # type: ignore[no-untyped-def]
    loss = nn.CrossEntropyLoss()
    assert loss(P, LABELS.astype(dtype))[0] == loss(P, LABELS)[0]


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.BCEWithLogitsLoss()], ids=repr)
def test_integer_and_bool_targets_are_converted(loss) -> None:  # type: ignore[no-untyped-def]
    target = np.array([[1, 0, 1], [0, 0, 1]])
    expected = loss(P, target.astype(np.float64))[0]
    assert loss(P, target)[0] == loss(P, target.astype(bool))[0] == expected


def test_native_description() -> None:
    rest = {"weight": None, "label_smoothing": 0.0, "delta": 1.0}
    assert nn.MSELoss().native() == {"kind": "mse", "reduction": "mean", **rest}
    assert nn.L1Loss("sum").native() == {"kind": "l1", "reduction": "sum", **rest}
    assert nn.HuberLoss(2).native() == {"kind": "huber", "reduction": "mean", **rest, "delta": 2.0}
    assert nn.CrossEntropyLoss(label_smoothing=0.1).native() == {
        "kind": "cross_entropy",
        "reduction": "mean",
        **rest,
        "label_smoothing": 0.1,
    }
    native = nn.CrossEntropyLoss(WEIGHT).native()["weight"]
    assert native.dtype == np.float64 and native.tolist() == WEIGHT and not native.flags.writeable
    assert nn.BCEWithLogitsLoss().native() == {"kind": "bce", "reduction": "mean", **rest}
    assert nn.BCEWithLogitsLoss(3).native()["weight"].tolist() == [3.0]


def test_weights_are_copied() -> None:
    weight = np.array(WEIGHT)
    loss = nn.CrossEntropyLoss(weight)
    before = loss(P, LABELS)[0]
    weight[:] = 7.0
    assert loss(P, LABELS)[0] == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case[0])[:40])
def test_losses_pickle(case) -> None:  # type: ignore[no-untyped-def]
    loss, target = case[0], case[1]
    assert pickle.loads(pickle.dumps(loss))(P, target)[0] == loss(P, target)[0]
    with pytest.raises(AttributeError):
        loss.reduction = "sum"


ALL = [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.CrossEntropyLoss, nn.BCEWithLogitsLoss]


@pytest.mark.parametrize("make", ALL)
def test_reduction(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(
        ValueError, match=rf"\[{make.__name__}\] expected reduction .* one number, got 'none'"
    ):
        make(reduction="none")
    with pytest.raises(ValueError, match="expected reduction to be one of 'mean', 'sum', got 'average'"):
        make(reduction="average")
    with pytest.raises(TypeError, match="expected reduction"):
        make(reduction=None)


@pytest.mark.parametrize("make", ALL)
def test_predictions_are_floating(make) -> None:  # type: ignore[no-untyped-def]
    for prediction in (np.zeros((2, 2), np.int64), np.zeros((2, 2), np.float16)):
        with pytest.raises(
            TypeError, match=rf"\[{make.__name__}\] expected prediction of dtype float32 or float64"
        ):
            make()(prediction, prediction)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: nn.HuberLoss(0.0), ValueError, "expected delta to be a finite number > 0, got 0.0"),
        (lambda: nn.HuberLoss(np.inf), ValueError, "expected delta"),
        (lambda: nn.HuberLoss("1"), TypeError, "expected delta"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=1.1), ValueError, "expected label_smoothing"),
        (lambda: nn.CrossEntropyLoss([1.0, -1.0]), ValueError, "expected weight .* got -1.0 at index 1"),
        (lambda: nn.CrossEntropyLoss([1.0, np.nan]), ValueError, "expected weight .* got nan at index 1"),
        (lambda: nn.CrossEntropyLoss(2.0), ValueError, r"expected weight of shape \(n,\), got \(\)"),
        (lambda: nn.CrossEntropyLoss([]), ValueError, "expected weight of shape"),
        (lambda: nn.CrossEntropyLoss(["a"]), TypeError, "expected weight to be an array of numbers"),
        (lambda: nn.BCEWithLogitsLoss(np.ones((2, 2))), ValueError, "expected pos_weight of shape"),
        (lambda: nn.BCEWithLogitsLoss(-1.0), ValueError, "expected pos_weight"),
    ],
)
def test_bad_settings_are_named(make, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        make()
