"""Draw all learning-rate schedules, one panel each, into docs/pictures/schedules.png (or the file named).

python docs/schedules_picture.py [FILE]
"""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from gvcore import schedules

TOTAL = 100
PANELS = {
    "constant(1)": schedules.constant(1.0),
    "exponential(1, gamma=0.96)": schedules.exponential(1.0, 0.96),
    "exponential(1, gamma=0.5, every=20)": schedules.exponential(1.0, 0.5, every=20),
    "linear(1, 80)": schedules.linear(1.0, 80),
    "cosine(1, 80)": schedules.cosine(1.0, 80),
    "cosine(1, 80, end=0.1, warmup_steps=20)": schedules.cosine(1.0, 80, end=0.1, warmup_steps=20),
    "polynomial(1, 80, power=2)": schedules.polynomial(1.0, 80, power=2.0),
    "step(1, step_size=30, gamma=0.3)": schedules.step(1.0, 30, gamma=0.3),
    "step(1, gamma=0.3, milestones=[40, 70])": schedules.step(1.0, gamma=0.3, milestones=[40, 70]),
    "one_cycle(1, 80)": schedules.one_cycle(1.0, 80),
    "warmup(linear(1, 60), 20)": schedules.warmup(schedules.linear(1.0, 60), 20),
    "join([0.3, cosine(1, 60)], [30])": schedules.join([0.3, schedules.cosine(1.0, 60)], [30]),
}


def main(path: str) -> None:
    figure = Figure(figsize=(10, 8.5), dpi=80, layout="constrained")
    axes = figure.subplots(4, 3, sharex=True, sharey=True)
    steps = range(TOTAL + 1)
    for ax, (name, schedule) in zip(axes.flat, PANELS.items(), strict=True):
        # A rate holds for a whole step, so jumps are drawn as jumps.
        ax.step(steps, [schedule(step) for step in steps], where="post", color="#0072B2")
        ax.set_title(name, fontsize=8.5, family="monospace")
        ax.grid(alpha=0.3)
        ax.set_xlim(0, TOTAL)
        ax.set_ylim(-0.03, 1.08)
    for ax in axes[-1]:
        ax.set_xlabel("step")
    for ax in axes[:, 0]:
        ax.set_ylabel("learning rate")
    figure.savefig(path)
    print(path)


if __name__ == "__main__":
    default = Path(__file__).resolve().parent / "pictures" / "schedules.png"
    main(sys.argv[1] if len(sys.argv) > 1 else str(default))
