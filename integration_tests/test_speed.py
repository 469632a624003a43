"""A gate on the work of training, counted in operations: the same on every machine."""

from __future__ import annotations

import json
import sys

import pytest
from lfr_testing import ROOT, printed_by_python

SPEED = ROOT / "benchmarks" / "speed"


@pytest.fixture(scope="module")
def speed():
    """benchmarks/speed/speed.py."""
    sys.path.insert(0, str(SPEED))
    try:
        import speed
    finally:
        sys.path.remove(str(SPEED))
    return speed


@pytest.fixture(scope="module")
def passes(speed):
    """Operations of each of its tasks in forward passes, for a few images."""
    makers = speed.makers_of("paper-cnn", batch=4)
    return speed.passes_of({name: make() for name, make in makers.items()})


@pytest.mark.parametrize(
    "path", sorted((SPEED / "measured").glob("*.json")), ids=lambda path: path.stem
)
def test_published_tables_follow_from_their_results(speed, path):
    table = speed.to_markdown(json.loads(path.read_text()))
    assert table in (SPEED / "tables.md").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, which Linux has")
def test_memory_of_one_iteration_is_seen():
    command = (SPEED / "speed.py", "one", "paper-cnn", "iteration, PGD adversarial training")
    # Activations of 128 images: 32 x 26 x 26 floats after the first layer alone are 11 MiB.
    assert float(printed_by_python(*command)) > 11


@pytest.mark.parametrize(
    ("task", "least", "most"),
    [
        ("PGD step (one gradient)", 1.9, 2.0),
        # Two gradients a step and one at its end, and nothing else; 16 gradients.
        ("ascent, two gradients a step", 41.0, 42.0),
        ("ascent, renewing every second", 31.0, 32.0),
        ("ascent, exact", 50.0, 52.0),
        # Clean, upper and lower end, each with gradients in the weights.
        ("outer step, finite difference", 8.8, 9.0),
        ("outer step, exact", 8.8, 9.0),
        # The trainer's two steps take five gradients, or two and one pass to descend.
        ("iteration, LFR, as by default", 18.0, 19.0),
        ("iteration, adversarial training, as by default", 6.5, 7.0),
        # 15, 20 and 11 gradients in 10 steps, one at the end of them, the outer step.
        ("iteration, LFR", 40.0, 41.0),
        ("iteration, LFR, two gradients a step", 50.0, 51.0),
        ("iteration, LFR, one gradient a step", 32.0, 33.0),
        ("iteration, LFR exact", 60.0, 61.0),
        ("iteration, as published", 59.0, 60.0),
        ("iteration, as published, channels last", 59.0, 60.0),
        ("iteration, PGD adversarial training", 22.0, 23.0),
    ],
)
def test_work_in_forward_passes(passes, task, least, most):
    assert least < passes[task] <= most


@pytest.mark.parametrize("task", ["iteration, LFR exact", "iteration, as published"])
def test_a_vision_transformer_is_differentiated_twice(speed, task):
    pytest.importorskip("timm", reason="timm, which robustbench brings, is not installed")
    speed.makers_of("vit-tiny", batch=1, steps=1)[task]()()
