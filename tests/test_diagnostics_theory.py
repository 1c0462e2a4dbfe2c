"""`diagnose` against what mean-field theory says of wide nets at initialisation.

Sources: K. He et al. 2015 (arXiv 1502.01852) for ReLU; S. Schoenholz et al. 2017 (arXiv 1611.01232) for
sigmoid and tanh; G. Yang et al. 2019 (arXiv 1902.08129) for batch norm; B. Hanin, M. Nica 2018
(arXiv 1812.05994) for how far a net of finite width strays from it.

In a net z = W h, h' = f(z) with independent weights of variance s²/n, the square of the gradient's norm
changes by chi = s² E[f'(sqrt(q) u)²] in each layer, u standard normal, where q is the variance of z:
q' = s² E[f(sqrt(q) u)²].
"""

import math

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn

WIDTH, LAYERS, ROWS, SEEDS = 192, 24, 64, 4


def expect(function, q):
    """E[function(sqrt(q) u)] by Gauss-Hermite quadrature."""
    points, weights = np.polynomial.hermite_e.hermegauss(101)
    return float(weights @ function(math.sqrt(q) * points)) / math.sqrt(2 * math.pi)


def tolerance(layers=LAYERS, width=WIDTH):
    """Four standard deviations of the mean of log(growth per layer) over the seeds.

    For ReLU nets the log of the squared norm of a back-propagated vector is about normal with variance
    5/width per layer (Hanin & Nica, theorem 1); for bounded f' it is smaller. Its half is the log of the
    norm; the slope of a random walk of n steps, by the median of pairwise slopes, has about 6/5 of the
    variance of a step over n.
    """
    return 4 * math.sqrt(1.2 * 5 / width / layers) / 2 / math.sqrt(SEEDS)


# The mean of the log lies below the log of the mean: half the variance of log(norm²), halved for the norm.
BIAS = -5 / WIDTH / 4


def plain(activation, init, *, width=WIDTH, layers=LAYERS, batch_norm=False):
    net = []
    for _ in range(layers):
        net += [nn.Linear(width, width, bias=False, init=init)]
        net += [nn.BatchNorm(width)] if batch_norm else []
        net += [activation()]
    return nn.Sequential(*net, nn.Linear(width, 10, init="lecun_normal"))


def reports(net, rows=ROWS):
    """Diagnose the net with weights, inputs and labels of several seeds."""
    width = net[0].in_features
    for seed in range(SEEDS):
        generator = np.random.default_rng(seed)
        x = generator.standard_normal((rows, width))
        y = generator.integers(0, 10, rows)
        yield gv.diagnose(net.reset_parameters(seed), x, y, nn.CrossEntropyLoss())


def mean_log_growth(net, rows=ROWS):
    return np.mean([math.log(report.growth_per_layer) for report in reports(net, rows)])


@pytest.mark.parametrize(
    ("init", "square"), [("kaiming_normal", 1.0), ("xavier_normal", 0.5), ("lecun_normal", 0.5)]
)
def test_relu(init, square):
    """E[f'²] = 1/2: chi = 1 for variance 2/n (He), 1/2 for 1/n (Xavier, LeCun): sqrt(1/2) in the norm."""
    growth = mean_log_growth(plain(nn.ReLU, init))
    assert abs(growth - 0.5 * math.log(square) - BIAS) < tolerance()


def test_relu_activations_shrink_as_the_gradient_does():
    """E[f(z)²] = q/2: with Xavier both norms lose a factor of sqrt(1/2) per layer, each on its own way."""
    growth = np.mean([math.log(r.activation_growth.factor) for r in reports(plain(nn.ReLU, "xavier_normal"))])
    assert abs(growth - 0.5 * math.log(0.5) - BIAS) < tolerance()


def fixed_point(f, gain):
    q = 1.0
    for _ in range(1000):
        q = gain**2 * expect(lambda z: f(z) ** 2, q)
    return q


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_sigmoid():
    """Xavier: q = E[σ(sqrt(q) u)²], chi = E[σ'²] ≈ 0.056; the norm shrinks by a factor of 0.236."""
    q = fixed_point(sigmoid, 1.0)
    chi = expect(lambda z: (sigmoid(z) * (1 - sigmoid(z))) ** 2, q)
    assert 0.23 < math.sqrt(chi) < 0.24
    growth = mean_log_growth(plain(nn.Sigmoid, "xavier_normal"))
    assert abs(growth - 0.5 * math.log(chi)) < tolerance() - BIAS


def test_tanh_at_its_critical_gain():
    """Gain 1: q falls like a power of the depth, chi tends to 1; the squares change by its product."""
    q, logarithm = 1.0, 0.0
    for layer in range(LAYERS):
        if layer > 0:  # between the inputs of the second block and of the last
            logarithm += 0.5 * math.log(expect(lambda z: (1 - np.tanh(z) ** 2) ** 2, q))
        q = expect(lambda z: np.tanh(z) ** 2, q)
    found = np.mean(
        [
            math.log(report.gradient_norms[1] / report.gradient_norms[-1])
            for report in reports(plain(nn.Tanh, "xavier_normal"))
        ]
    )
    steps = LAYERS - 1
    assert abs(found - logarithm) < steps * (tolerance() - BIAS)
    assert -2.5 < logarithm < -0.5  # far from an exponential: the first factor alone is 0.68


def test_tanh_in_its_chaotic_phase():
    """Gain 2: q = 4 E[tanh²], chi = 4 E[tanh'²] > 1, the gradient explodes although activations stay."""
    q = fixed_point(np.tanh, 2.0)
    chi = 4 * expect(lambda z: (1 - np.tanh(z) ** 2) ** 2, q)
    assert chi > 1.2
    net = plain(nn.Tanh, nn.init.xavier_normal(gain=2.0))
    assert abs(mean_log_growth(net) - 0.5 * math.log(chi)) < tolerance() - BIAS
    for report in reports(net):
        assert abs(report.activation_growth.factor - 1) < 0.01


def test_batch_norm_without_skips():
    """Yang et al.: for large batches squares grow by pi/(pi - 1) per layer, norms by 1.21.

    At a finite batch of B rows the rate is larger by O(1/B); the transient of the first layers does not
    move a median of slopes.
    """
    net = plain(nn.ReLU, "kaiming_normal", batch_norm=True)
    growth = mean_log_growth(net, rows=256)
    assert abs(growth - 0.5 * math.log(math.pi / (math.pi - 1))) < tolerance() - BIAS + 2 / 256


def test_batch_norm_without_skips_explodes_at_50_layers_not_at_10():
    for layers, verdict in ((10, "healthy"), (50, "exploding")):
        net = plain(nn.ReLU, "kaiming_normal", batch_norm=True, layers=layers, width=64)
        assert {report.verdict for report in reports(net)} == {verdict}


def test_residual_blocks_with_batch_norm_follow_a_power_of_the_depth():
    """Yang et al., section on residual nets: with skips the growth is a power of the depth.

    A power gains the same factor from block l to block 2 l at every l, an exponential its square at twice
    the l.
    """
    net = gv.models.resnet(64, 10, width=64, depth=402)
    doublings = [10, 20, 40, 80]
    for report in reports(net):
        g = report.gradient_norms
        factors = np.array([g[at] / g[2 * at] for at in doublings])
        assert (factors > 1.2).all() and (factors < 4).all()
        assert factors.max() / factors.min() < 2
        assert report.verdict == "healthy"
        assert 1.0 < report.growth_per_layer < 1.02
