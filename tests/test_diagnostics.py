"""`diagnose`: its numbers against NumPy, its blocks, its verdicts, and that it changes nothing.

What theory says of wide nets is in test_diagnostics_theory.py.
"""

import json
import math
import pickle
import subprocess
import sys

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn
from gvcore.diagnostics import flow, probe

LOSS = nn.CrossEntropyLoss()
DIGITS, LABELS = (part[:128] for part in gv.datasets.digits())


def plain(layers, activation=nn.ReLU, width=16, init="kaiming_normal", batch_norm=False):
    net = []
    for i in range(layers):
        net.append(nn.Linear(64 if i == 0 else width, width, init=init, seed=i))
        net += [nn.BatchNorm(width)] if batch_norm else []
        net.append(activation())
    return nn.Sequential(*net, nn.Linear(width, 10, init="lecun_normal", seed=layers))


def diagnose(net, **kwargs):
    return gv.diagnose(net, DIGITS, LABELS, LOSS, **kwargs)


def everything(report):
    return json.dumps(report.to_dict())


# ---- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_numpy(dtype):
    generator = np.random.default_rng(0)
    w1, w2 = generator.standard_normal((5, 4)), generator.standard_normal((3, 5))
    x, y = generator.standard_normal((7, 4)), generator.standard_normal((7, 3))
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)).astype(dtype)
    net.load_state_dict({"0.weight": w1, "0.bias": np.full(5, 0.1), "2.weight": w2})
    report = gv.diagnose(net, x, y, nn.MSELoss())

    z = x @ w1.T + 0.1
    h = np.tanh(z)
    out = h @ w2.T
    dout = 2 * (out - y) / out.size
    dh = dout @ w2
    dz = dh * (1 - h**2)
    dx = dz @ w1
    length = np.linalg.norm
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(report.gradient_norms, [length(dx), length(dh)], rtol=tolerance)
    np.testing.assert_allclose(report.activation_norms, [length(h), length(out)], rtol=tolerance)
    np.testing.assert_allclose(
        [r.gradient_norm for r in report.layers], [*map(length, (dz, dh, dout))], rtol=tolerance
    )
    np.testing.assert_allclose(
        [r.activation_norm for r in report.layers], [*map(length, (z, h, out))], rtol=tolerance
    )
    assert [r.activation_rms * math.sqrt(7 * 5) for r in report.layers[:1]] == pytest.approx(
        [length(z)], rel=tolerance
    )
    of_parameters = {
        "0.weight": length(dz.T @ x),
        "0.bias": length(dz.sum(0)),
        "2.weight": length(dout.T @ h),
    }
    assert report.parameter_gradient_norms == pytest.approx(of_parameters, rel=tolerance)
    both = math.hypot(of_parameters["0.weight"], of_parameters["0.bias"])
    assert report.blocks[0].parameter_gradient_norm == pytest.approx(both, rel=tolerance)
    assert report.loss == pytest.approx(np.mean((out - y) ** 2), rel=tolerance)


def test_a_loss_written_in_python_gives_the_same():
    net = gv.models.resnet(64, 10, width=16, depth=10, seed=0)
    native = diagnose(net).to_dict()
    own = gv.diagnose(net, DIGITS, LABELS, lambda p, t: gv.functional.cross_entropy(p, t)).to_dict()
    for key in ("loss", "gradient_norms"):
        np.testing.assert_allclose(own[key], native[key], rtol=1e-5)
    assert own["verdict"] == native["verdict"]


def test_dead_units():
    net = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10, seed=0))
    weight, bias = net.parameters()["0.weight"], net.parameters()["0.bias"]
    weight[...] = 1
    bias[:3] = -1e3  # pixels are not negative: the other five units are always alive
    report = diagnose(net)
    assert report.layers[1].dead == report.blocks[0].dead == 3 / 8
    assert report.layers[0].dead is None and report.layers[1].saturated is None


@pytest.mark.parametrize(("activation", "edge"), [(nn.Tanh, 3.0), (nn.Sigmoid, 6.0)])
def test_saturated_units(activation, edge):
    """f' is 1 % of its largest value at atanh(sqrt(0.99)) = 2.993 for tanh, and at twice that for sigmoid."""
    net = nn.Sequential(nn.Linear(64, 6), activation(), nn.Linear(6, 10, seed=0))
    parameters = net.parameters()
    parameters["0.weight"][...] = 0
    parameters["0.bias"][...] = [0, edge - 0.1, edge + 0.1, -edge - 0.1, 50, -50]
    report = diagnose(net)
    assert report.layers[1].saturated == 4 / 6
    assert report.layers[1].dead is None


def test_the_norm_neither_overflows_nor_underflows():
    assert flow.norm(np.full(1000, 1e200)) == pytest.approx(1e200 * math.sqrt(1000))
    assert flow.norm(np.full((3, 257), 1e-200)) == pytest.approx(1e-200 * math.sqrt(771))
    assert flow.norm(np.full(4, 2e38, np.float32)) == pytest.approx(4e38)
    assert flow.norm(np.zeros((0, 3))) == flow.norm(np.zeros(3)) == 0.0
    assert flow.norm(np.array([1.0, -math.inf])) == math.inf
    assert math.isnan(flow.norm(np.array([1.0, math.nan])))


def test_the_fit_forgives_some_odd_blocks_and_ignores_what_is_lost():
    depth = list(range(30))
    norms = [2.0 * 0.5**d for d in depth]
    norms[0] *= 1e6
    norms[7] = 0.0
    norms[8] = math.nan
    norms[-1] = 1e-300
    found = flow.fit(depth, norms, [1e-30] * 30)
    assert found.factor == pytest.approx(0.5) and found.spread == pytest.approx(1.0)
    assert math.isnan(flow.fit([0, 1], [1.0, 0.0], [0.0, 0.0]).factor)
    assert flow.fit(range(3000), [1.001**d for d in range(3000)], [0.0] * 3000).factor == pytest.approx(1.001)


# ---- blocks -------------------------------------------------------------------------------------


def test_blocks_begin_at_weights():
    net = nn.Sequential(
        nn.Flatten(),
        nn.BatchNorm(64),
        nn.Linear(64, 8, seed=0),
        nn.BatchNorm(8),
        nn.ReLU(),
        nn.Sequential(nn.Linear(8, 8, seed=1), nn.ReLU()),
        nn.Residual(
            nn.Linear(8, 8, seed=2), nn.ReLU(), nn.Linear(8, 8, seed=3), shortcut=nn.Linear(8, 8, seed=4)
        ),
        nn.Linear(8, 10, seed=5),
    )
    report = gv.diagnose(net, DIGITS.reshape(-1, 8, 8), LABELS, LOSS)
    assert [(b.name, b.depth) for b in report.blocks] == [("0", 0), ("5.0", 1), ("6", 2), ("7", 4)]
    assert report.blocks[0].kind == "Flatten, BatchNorm, Linear, BatchNorm, ReLU"
    assert [layer.name for layer in report.layers] == [
        *("0", "1", "2", "3", "4", "5.0", "5.1", "6.shortcut", "6.layers.0", "6.layers.1", "6.layers.2", "7"),
    ]


def test_a_module_of_ones_own():
    class Net(nn.Module):
        def __init__(self):
            self.stem = nn.Linear(64, 8, seed=0)
            self.act = nn.Tanh()
            self.body = nn.ModuleList([nn.Linear(8, 8, seed=i) for i in range(3)])
            self.head = nn.Linear(8, 10, seed=9)

        def forward(self, x):
            x = self.act(self.stem(x))
            for layer in self.body:
                x = x + self.act(layer(x))
            return self.head(gv.functional.relu(x))

    report = diagnose(Net())
    assert [block.name for block in report.blocks] == ["stem", "body.0", "body.1", "body.2", "head"]
    assert [block.kind for block in report.blocks[:2]] == ["Linear, Tanh", "Linear, Tanh"]
    wrapped = diagnose(nn.Sequential(nn.Residual(Net(), shortcut=nn.Linear(64, 10, seed=1))))
    assert [block.name for block in wrapped.blocks] == ["0.shortcut", "0.layers.0"]


def test_nets_without_a_chain():
    assert [b.name for b in diagnose(nn.Linear(64, 10, seed=0)).blocks] == [""]
    alone = gv.diagnose(nn.Sequential(nn.Tanh(), nn.Tanh()), DIGITS, DIGITS + 1, nn.MSELoss())
    assert [(b.name, b.depth) for b in alone.blocks] == [("0", 0), ("1", 1)]
    assert math.isnan(diagnose(nn.Linear(64, 10, seed=0)).growth_per_layer)
    assert "nan" in str(diagnose(nn.Linear(64, 10, seed=0)))


# ---- verdicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [10, 1000])
def test_verdicts_at_10_and_1000_layers(layers):
    healthy = diagnose(gv.models.resnet(64, 10, width=16, depth=layers, seed=0))
    assert (healthy.verdict, healthy.starts_at) == ("healthy", None)
    vanishing = diagnose(plain(layers, nn.Sigmoid, init="xavier_normal"))
    assert vanishing.verdict == "vanishing"
    assert vanishing.starts_at == str(2 * layers - 4)  # a factor of 0.235: below a tenth at the second layer
    assert 0.2 < vanishing.growth_per_layer < 0.27
    assert len(vanishing.blocks) == layers + 1
    exploding = diagnose(plain(layers, init=nn.init.xavier_normal(gain=4.0)))  # by 4 sqrt(1/2) = 2.8
    assert exploding.verdict == "exploding"
    if layers == 10:
        assert 2 < exploding.growth_per_layer < 4
        assert exploding.starts_at in ("12", "14", "16")


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(2099.0, "healthy"), (2101.0, "exploding"), (0.0, "vanishing")]
)
def test_the_band_counts_the_last_layer(ratio, verdict):
    """A net of 21 layers, of which 20 lie before the last block: norms may differ by a factor of 2,100."""
    norms = [ratio or 1 / 2101] + [1.0] * 20
    blocks = [flow.BlockFlow(f"{i}", "Linear", i, 1.0, 1.0, g, None, None, None) for i, g in enumerate(norms)]
    assert flow.judge(blocks, None, 1.0) == (verdict, None if verdict == "healthy" else "0")
    inside = [flow.BlockFlow("0", "Linear", 0, 1.0, 1.0, 1 / 2099, None, None, None), *blocks[1:]]
    assert flow.judge(inside, None, 1.0) == ("healthy", None)


def test_underflow_is_vanishing_and_overflow_exploding():
    report = diagnose(plain(1000, nn.Sigmoid, init="xavier_normal"))
    assert report.gradient_norms[0] == 0.0 and report.gradient_norms[-1] > 0.0
    report = diagnose(plain(1000, batch_norm=True))
    assert not math.isfinite(report.gradient_norms[0]) and math.isfinite(report.gradient_norms[-1])
    assert report.verdict == "exploding" and 1.15 < report.growth_per_layer < 1.3
    assert "nan" in str(report)


def test_activations_that_overflow():
    net = plain(200, init=nn.init.constant(1.0))
    report = diagnose(net)
    first = next(r.name for r in report.layers if not math.isfinite(r.activation_norm))
    assert (report.verdict, report.starts_at) == ("exploding", first)
    assert first in str(report).splitlines()[0]
    json.dumps(report.to_dict())
    report = diagnose(gv.models.mlp(64, 10, [16] * 400, residual=True, seed=0))
    assert report.verdict == "exploding"
    block = next(b.name for b in report.blocks if not math.isfinite(b.activation_norm))
    assert report.starts_at in (block, f"{block}.layers.0")


def test_nan_in_a_weight_is_named():
    net = plain(5)
    net.parameters()["4.weight"][0, 0] = math.nan
    assert (diagnose(net).verdict, diagnose(net).starts_at) == ("exploding", "4")


def test_one_layer_that_blocks_the_gradient():
    net = plain(12, nn.Tanh, init="xavier_normal")
    net.parameters()["10.bias"][...] = 12.0
    report = diagnose(net)
    assert (report.verdict, report.starts_at) == ("vanishing", "10")
    assert report.layers[11].saturated == 1.0
    # A last layer of zeros passes nothing back.
    net = plain(3)
    net.parameters()["6.weight"][...] = 0
    assert (diagnose(net).verdict, diagnose(net).starts_at) == ("vanishing", "6")
    # Dead units all over a layer.
    net = plain(6)
    net.parameters()["4.bias"][...] = -1e3
    report = diagnose(net)
    assert (report.verdict, report.starts_at) == ("vanishing", "4")
    assert report.blocks[2].dead == 1.0 and report.blocks[1].dead < 1.0


def test_a_batch_that_is_fitted_exactly_is_healthy():
    net = nn.Sequential(nn.Linear(64, 8, seed=0), nn.Linear(8, 1, seed=1))
    report = gv.diagnose(net, DIGITS, net(DIGITS), nn.MSELoss())
    assert (report.verdict, report.loss) == ("healthy", 0.0) and not report.gradient_norms.any()


# ---- changes nothing ----------------------------------------------------------------------------


def noisy_net():
    return nn.Sequential(
        nn.Linear(64, 16, seed=0), nn.BatchNorm(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10, seed=1)
    )


def bits(net):
    return {name: array.tobytes() for name, array in net.state_dict().items()}


def test_it_changes_nothing():
    net, twin = noisy_net(), noisy_net()
    trainers = [gv.TrainStep(n, LOSS, gv.optim.SGD(lr=0.1, momentum=0.9), seed=3) for n in (net, twin)]
    assert trainers[0](DIGITS, LABELS) == trainers[1](DIGITS, LABELS)
    views = {name: array.ctypes.data for name, array in net.parameters().items()}
    before, random_state = bits(net), pickle.dumps(np.random.get_state())  # noqa: NPY002
    prediction = net(DIGITS).tobytes()
    report = diagnose(net)
    assert bits(net) == before
    assert {name: array.ctypes.data for name, array in net.parameters().items()} == views
    assert pickle.dumps(np.random.get_state()) == random_state  # noqa: NPY002
    assert net(DIGITS).tobytes() == prediction
    assert everything(diagnose(net)) == everything(report)
    # The step that was made before goes on, and with the same dropout.
    for _ in range(3):
        assert trainers[0](DIGITS, LABELS) == trainers[1](DIGITS, LABELS)
        diagnose(net)
    assert bits(net) == bits(twin)


def test_frozen_parameters():
    net = plain(4).freeze("0.*")
    report = diagnose(net)
    assert "0.weight" not in report.parameter_gradient_norms
    assert report.blocks[0].parameter_gradient_norm is None
    free = diagnose(plain(4))
    np.testing.assert_array_equal(report.gradient_norms, free.gradient_norms)
    assert diagnose(net.freeze()).parameter_gradient_norms == {}


def test_dropout_follows_the_seed():
    net = noisy_net()
    reports = [everything(diagnose(net, seed=seed)) for seed in (0, 0, 1)]
    assert reports[0] == reports[1] != reports[2]


def test_the_same_bits_on_threads_and_instruction_sets_and_in_portions(monkeypatch):
    nets = [noisy_net(), gv.models.resnet(64, 10, width=16, depth=20, seed=0)]
    expected = [everything(diagnose(net)) for net in nets]
    for isa in gv.available_isas():
        for threads in (1, 2, 3):
            with gv.isa(isa), gv.threads(threads):
                assert [everything(diagnose(net)) for net in nets] == expected
    monkeypatch.setattr(probe, "_MOST_BYTES", 50_000)
    assert [everything(diagnose(net)) for net in nets] == expected


# ---- showing ------------------------------------------------------------------------------------


def test_table_at_10_layers_shows_every_block():
    text = str(diagnose(plain(10, nn.Sigmoid, init="xavier_normal")))
    assert len(text.splitlines()) == 4 + 1 + 2 + 11
    assert text.startswith("vanishing, starts at 16: gradient norm × 0.2")
    assert sum("starts here" in line for line in text.splitlines()) == 1


def test_table_at_1000_layers_fits_a_screen():
    lines = str(diagnose(plain(1000, nn.Sigmoid, init="xavier_normal"))).splitlines()
    assert len(lines) < 45 and max(map(len, lines)) < 100
    assert "more" in "".join(lines) and sum("starts here" in line for line in lines) == 1
    shown = sum(line[0].isdigit() for line in lines[7:])
    hidden = sum(int(line.split()[1]) for line in lines[7:] if line.startswith("…"))
    assert shown + hidden == 1001


@pytest.mark.parametrize("layers", [10, 1000])
def test_plot(layers, tmp_path):
    pytest.importorskip("matplotlib")
    for net in (
        plain(layers),
        plain(layers, nn.Sigmoid),
        plain(layers, batch_norm=True),
        plain(layers, width=1),
    ):
        ax = diagnose(net).plot()
        assert ax.get_yscale() == "log" and "gradient" in ax.get_ylabel() and "block" in ax.get_xlabel()
        ax.figure.savefig(tmp_path / "flow.png")
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    assert len(pyplot.get_fignums()) == 4  # what pyplot.show() would show
    pyplot.close("all")

    mine = Figure().add_subplot()
    assert diagnose(plain(3)).plot(ax=mine) is mine


def test_plot_without_matplotlib_names_the_extra():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np, gvcore as gv\n"
        "x = np.ones((3, 2))\n"
        "report = gv.diagnose(gv.nn.Linear(2, 2, seed=0), x, x, gv.nn.MSELoss())\n"
        "try: report.plot()\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "gvcore[plot]" in done.stdout, done.stderr


def test_to_dict_is_plain_and_complete():
    report = diagnose(gv.models.resnet(64, 10, width=16, depth=10, seed=0))
    plain_again = json.loads(everything(report))
    assert plain_again["gradient_norms"] == report.gradient_norms.tolist()
    assert plain_again["growth_per_layer"] == report.growth_per_layer
    assert len(plain_again["blocks"]) == len(report.blocks) == 6
    assert set(plain_again["parameter_gradient_norms"]) == set(
        gv.models.resnet(64, 10, width=16, depth=10, seed=0).parameters()
    )


# ---- bad input ----------------------------------------------------------------------------------


def test_bad_input():
    net = noisy_net()
    before = bits(net)
    bad = DIGITS.copy()
    bad[3, 5] = math.nan
    for error, text, arguments in [
        (TypeError, r"\[diagnose\] expected net", ("net", DIGITS, LABELS, LOSS)),
        (TypeError, r"\[diagnose\] expected loss", (net, DIGITS, LABELS, "mse")),
        (TypeError, r"\[diagnose\] expected loss", (net, DIGITS, LABELS, nn.MSELoss)),
        (
            ValueError,
            r"\[diagnose\] expected x to be finite, got nan at index \(3, 5\)",
            (net, bad, LABELS, LOSS),
        ),
        (
            ValueError,
            r"\[diagnose\] expected y to be finite",
            (net, DIGITS, np.full((128, 10), np.inf), LOSS),
        ),
        (ValueError, r"\[diagnose\] expected y with 128 rows", (net, DIGITS, LABELS[:5], LOSS)),
        (ValueError, r"more than one row", (net, DIGITS[:1], LABELS[:1], LOSS)),
        (ValueError, r"\[diagnose\] expected a batch", (net, DIGITS[:0], LABELS[:0], LOSS)),
        (ValueError, r"expected labels in", (net, DIGITS, LABELS + 5, LOSS)),
        (ValueError, r"64", (net, DIGITS[:, :5], LABELS, LOSS)),
    ]:
        with pytest.raises(error, match=text):
            gv.diagnose(*arguments)
    with pytest.raises(TypeError, match="seed"):
        diagnose(net, seed=0.5)
    assert bits(net) == before


def test_a_net_with_two_outputs_is_refused():
    class Two(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(64, 10, seed=0), nn.Linear(64, 10, seed=1)

        def forward(self, x):
            return self.a(x), self.b(x)

    with pytest.raises(ValueError, match="one value, got 2"):
        diagnose(Two())
