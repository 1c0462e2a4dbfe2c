"""The loss classes: what they accept, what they pass on, and how the executor sees them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import gvcore as gv
import oracles
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


def step_loss(loss, prediction, target):  # type: ignore[no-untyped-def]
    """The loss and its gradient as a training step has them, for a net that returns a parameter."""
    net = nn.Sequential(nn.Flatten()) if prediction.ndim == 2 else nn.Identity()
    assert net.astype(prediction.dtype)(prediction).shape == prediction.shape
    return gv.value_and_grad(net, loss)(prediction, target)[0]


P3 = np.random.default_rng(0).normal(size=(4, 3, 5))
FITTING = {
    "bool labels": (nn.CrossEntropyLoss(), P[:, :2], np.array([True, False])),
    "labels (batch, 1)": (nn.CrossEntropyLoss(WEIGHT), P, LABELS[:, None]),
    "labels of positions": (nn.CrossEntropyLoss(label_smoothing=0.1), P3, np.arange(12).reshape(4, 3) % 5),
    "weighted labels of positions": (
        nn.CrossEntropyLoss(np.arange(1, 6)),
        P3,
        np.arange(12).reshape(4, 3) % 5,
    ),
    "summed labels of positions": (nn.CrossEntropyLoss(reduction="sum"), P3, np.zeros((4, 3), np.uint8)),
    "probabilities of positions": (nn.CrossEntropyLoss(), P3, np.full((4, 3, 5), 0.2)),
    "a column and a vector": (nn.MSELoss(), P[:, :1], np.array([1.0, 3.0])),
    "a column and a list": (nn.L1Loss(), P[:, :1], [1, 3]),
    "a column and bool": (nn.BCEWithLogitsLoss(2.0), P[:, :1], np.array([True, False])),
    "huber of a column": (nn.HuberLoss(), P[:, :1], np.array([1.0, 3.0], np.float16)),
    "a vector and a column": (nn.MSELoss(), P[:, 0], np.array([[1.0], [3.0]])),
}


@pytest.mark.parametrize("name", FITTING)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_loss_takes_what_a_step_takes(name, dtype) -> None:  # type: ignore[no-untyped-def]
    loss, prediction, target = FITTING[name]
    prediction = prediction.astype(dtype)
    value, gradient = loss(prediction, target)
    assert gradient.shape == prediction.shape and gradient.dtype == dtype
    assert value == pytest.approx(step_loss(loss, prediction, target), rel=1e-6)
    numeric = oracles.central_difference(lambda p: loss(p, target)[0], prediction.astype(np.float64))
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-6)


UNFIT = {
    "rows": (nn.MSELoss(), P, Y[:1], ValueError),
    "a scalar": (nn.MSELoss(), P, 1.0, ValueError),
    "columns": (nn.MSELoss(), P, Y[:, :2], ValueError),
    "floating labels": (nn.CrossEntropyLoss(), P, np.array([0.0, 1.0]), TypeError),
    "labels without positions": (nn.CrossEntropyLoss(), P3, np.zeros(4, int), ValueError),
    "complex": (nn.MSELoss(), P, Y + 0j, TypeError),
    "strings": (nn.MSELoss(), P, Y.astype(str), TypeError),
    "labels beyond int64": (nn.CrossEntropyLoss(), P, np.full(2, 2**64 - 1, np.uint64), ValueError),
    "ragged": (nn.HuberLoss(), P, [[1.0], [1.0, 2.0]], ValueError),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_loss_refuses_what_a_step_refuses(name) -> None:  # type: ignore[no-untyped-def]
    loss, prediction, target, error = UNFIT[name]
    for use in (lambda: loss(prediction, target), lambda: step_loss(loss, prediction, target)):
        with pytest.raises(error, match=r"^\[\w+\] expected"):
            use()


def test_predictions_that_are_no_batch() -> None:
    for loss, prediction in (
        (nn.MSELoss(), 1.0),
        (nn.CrossEntropyLoss(), 1.0),
        (nn.CrossEntropyLoss(), [1.0, 2.0]),
    ):
        with pytest.raises(ValueError, match=r"expected prediction .*got"):
            loss(prediction, [1, 0])
    for loss in (nn.MSELoss(), nn.CrossEntropyLoss()):
        with pytest.raises(ValueError, match=r"\[\w+Loss\] expected prediction to be an array, got a list"):
            loss([[1.0], [1.0, 2.0]], [1, 0])


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
