"""Forks, calls from within a call, and the end of the process while threads compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gvcore as gv
from gvcore import nn
from own_process import IMPORTS, LINUX, TRAIN, printed, run


@LINUX
def test_a_forked_child_computes_the_same() -> None:
    """The child of a process that has used its threads has none of them, and makes its own."""
    code = """
expected = train(3)
read, write = os.pipe()
child = os.fork()
if child == 0:
    os.write(write, (train(3) + train(2)).encode())
    os._exit(0)
os.close(write)
answer = b""
while part := os.read(read, 4096):
    answer += part
_, status = os.waitpid(child, 0)
print(status, answer.decode() == 2 * expected, train(3) == expected)
"""
    assert printed(TRAIN + code) == "0 True True"


@LINUX
def test_workers_of_multiprocessing_compute_the_same() -> None:
    code = """
import multiprocessing
expected = train(3)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(set(pool.map(train, [1, 2, 3, 2])) == {expected}, train(2) == expected)
"""
    assert printed(TRAIN + code) == "True True"


@LINUX
def test_a_fork_while_another_thread_trains() -> None:
    """The child has a net of its own; the parent's step goes on undisturbed."""
    code = """
import threading
expected, long = train(2), train(2, 300)
results = []
trainer = threading.Thread(target=lambda: results.append(train(2, 300)))
trainer.start()
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if train(2) == expected else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
trainer.join()
print(results == [long])
"""
    assert printed(TRAIN + code) == "True"


@LINUX
@pytest.mark.parametrize("kind", ["net", "gradients"])
def test_a_fork_while_another_thread_uses_the_same_net(kind: str) -> None:
    """What the other thread holds is nobody's in the child, which plans anew."""
    call = {"net": "net(x)", "gradients": "grad(x, y)[0]"}[kind]
    code = f"""
import threading, signal
net = gv.models.resnet(16, 3, width=64, depth=10, seed=0)
x, y = np.random.default_rng(0).normal(size=(3000, 16)).astype("f4"), np.arange(3000) % 3
grad = gv.value_and_grad(net, nn.CrossEntropyLoss())
evaluate = lambda: np.asarray({call}).tobytes()
expected, stop = evaluate(), threading.Event()
def go():
    while not stop.is_set():
        evaluate()
other = threading.Thread(target=go)
other.start()
statuses = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if evaluate() == evaluate() == expected else 1)
    statuses.append(os.waitpid(child, 0)[1])
stop.set()
other.join()
print(set(statuses))
"""
    assert printed(IMPORTS + code) == "{0}"


@LINUX
@pytest.mark.parametrize("call", ["net(x)", "step(x, y)", "grad(x, y)"])
def test_ctrl_c_at_any_moment_leaves_nothing_locked(call: str) -> None:
    code = f"""
import signal
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
net = nn.Linear(2, 1, seed=0)
step = gv.TrainStep(net, nn.MSELoss(), gv.optim.SGD(lr=0.0))
grad = gv.value_and_grad(net, nn.MSELoss())
x, y = np.ones((1, 2), "f4"), np.ones((1, 1), "f4")
{call}
for i in range(3000):
    try:
        signal.setitimer(signal.ITIMER_REAL, 2e-5 + i % 89 * 1e-6)
        while True:
            {call}
    except KeyboardInterrupt:
        pass
{call}
print("free")
"""
    assert printed(IMPORTS + code, timeout=60) == "free"


@LINUX
def test_ctrl_c_in_a_long_inference() -> None:
    """Signals are looked for while it runs: two alarms in one call are two calls of the handler, not one."""
    code = """
import signal
seen = []
signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
net = gv.models.mlp(16, 1, hidden=(256, 256), seed=0)
rows = 1 << 14
while len(seen) < 2 and rows < 1 << 24:
    rows *= 2
    x = np.broadcast_to(np.ones(16, "f4"), (rows, 16))
    seen.clear()
    signal.setitimer(signal.ITIMER_REAL, 0.15, 0.15)
    y = net(x)
    signal.setitimer(signal.ITIMER_REAL, 0)
assert len(seen) >= 2, (rows, seen)
assert y.shape == (rows, 1) and (y == net(x[:1])).all()

def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    net(x)
except KeyboardInterrupt:
    print(net(x[:1]) == y[0])
"""
    assert printed(IMPORTS + code) == "[[ True]]"


@LINUX
def test_a_fork_in_the_middle_of_a_step() -> None:
    """Half a step cannot be finished: the child says so instead of waiting for it."""
    code = """
import threading, signal
reached, go_on = threading.Event(), threading.Event()
def loss(prediction, target):
    reached.set()
    go_on.wait()
    return 0.0, 0 * prediction
step = gv.TrainStep(nn.Linear(2, 1, seed=0), loss, gv.optim.SGD(lr=0.1))
x, y = np.ones((4, 2)), np.ones((4, 1))
other = threading.Thread(target=lambda: step(x, y))
other.start()
reached.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    try:
        step(x, y)
    except RuntimeError as error:
        os._exit(0 if "half a step" in str(error) else 1)
    os._exit(2)
status = os.waitpid(child, 0)[1]
go_on.set()
other.join()
print(status, step(x, y))
"""
    assert printed(IMPORTS + code) == "0 0.0"


@LINUX
def test_a_fork_from_within_a_step() -> None:
    """The thread that forks goes on in both processes."""
    code = """
def loss(prediction, target):
    child = os.fork()
    if child == 0:
        return 0.0, 0 * prediction
    assert os.waitpid(child, 0)[1] == 0
    return 0.0, 0 * prediction
step = gv.TrainStep(nn.Linear(2, 1, seed=0), loss, gv.optim.SGD(lr=0.1))
parent = os.getpid()
value = step(np.ones((4, 2)), np.ones((4, 1)))
if os.getpid() != parent:
    os._exit(int(value != 0))
print(value)
"""
    assert printed(IMPORTS + code) == "0.0"


def test_what_calls_itself_is_refused() -> None:
    """A loss or a forward that calls what it is a part of would wait for itself."""
    net, x = nn.Linear(2, 1, seed=0), np.ones((4, 2))

    def step_again(prediction: Any, target: Any) -> Any:
        return step(x, x[:, :1]), prediction

    def evaluate_again(prediction: Any, target: Any) -> Any:
        return evaluate(x, x[:, :1])[0], prediction

    class Itself(nn.Module):
        def forward(self, value: Any) -> Any:
            return self(x)

    step = gv.TrainStep(net, step_again, gv.optim.SGD(lr=0.1))
    evaluate = gv.value_and_grad(net, evaluate_again)
    for call, what in [
        (lambda: step(x, x[:, :1]), "TrainStep"),
        (lambda: evaluate(x, x[:, :1]), "value_and_grad"),
        (lambda: Itself()(x), "net"),
    ]:
        with pytest.raises(RuntimeError, match=rf"\[{what}\] expected .* not to call the {what} that runs"):
            call()


@LINUX
@pytest.mark.parametrize(
    "call", ["net(x)", "F.matmul(x.T, x)", "trainer.fit(x, y, epochs=1000, batch_size=64)"]
)
def test_the_process_ends_while_a_daemon_thread_computes(call: str) -> None:
    code = f"""
import gvcore.functional as F
import sys, threading, time
net = gv.models.resnet(64, 5, width=64, depth=10, seed=0)
trainer = gv.Trainer(net, nn.CrossEntropyLoss(), gv.optim.SGD(lr=0.01), seed=0)
x, y = np.random.default_rng(0).normal(size=(20000, 64)).astype("f4"), np.zeros(20000, int)
begun = threading.Event()
def work():
    while True:
        {call}
        begun.set()
threading.Thread(target=work, daemon=True).start()
begun.wait(0.5)
sys.exit(3)
"""
    for _ in range(3):
        assert run(IMPORTS + code).returncode == 3
