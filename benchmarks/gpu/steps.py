"""The steps in their order: cheap first, so that a run that is cut has told most of what matters.

The seconds are what an H200 with 16 cores is expected to need, doubled; their sum is above the
budget, because most steps end early. Nothing here has run on a GPU yet.
"""

from __future__ import annotations

from typing import Final

from benchmarks.gpu.runner import Step

STEPS: Final = (
    Step("environment", "benchmarks.gpu.machine:environment", 30),
    Step("assumptions", "benchmarks.gpu.assumptions:measure", 40, least=10),
    Step("doctor", "benchmarks.gpu.machine:doctor", 20),
    Step("cpu switch", "benchmarks.gpu.machine:cpu_switch", 60, least=20),
    Step("out of memory", "benchmarks.gpu.memory:classification", 40, least=15),
    Step(
        "ladder", "benchmarks.gpu.memory:ladder", 60, least=25, cuda=True, after=("out of memory",)
    ),
    Step("tests", "benchmarks.gpu.suite:gpu_tests", 120, least=40, cuda=True),
    Step("weekly step", "benchmarks.gpu.retrieval:weekly_step", 60, least=20),
    Step("profile", "benchmarks.gpu.retrieval:profile_step", 30, least=15),
    Step("memory", "benchmarks.gpu.retrieval:memory", 40, least=15),
    Step(
        "switches",
        "benchmarks.gpu.retrieval:switches",
        90,
        least=20,
        cuda=True,
        after=("weekly step",),
    ),
    Step("search", "benchmarks.gpu.numerics:search", 30, least=10),
    Step("norms", "benchmarks.gpu.numerics:norms", 20, least=5),
    Step(
        "fp16",
        "benchmarks.gpu.numerics:half_precision",
        30,
        least=10,
        cuda=True,
        after=("weekly step",),
    ),
    Step("four bit", "benchmarks.gpu.numerics:four_bit", 60, least=25),
    Step("run and kill", "benchmarks.gpu.runs:kill", 90, least=40),
    Step("captions", "benchmarks.gpu.captions:generation", 90, least=25),
    Step("vqa step", "benchmarks.gpu.vqa:step", 60, least=20),
    Step(
        "compile",
        "benchmarks.gpu.retrieval:compiled",
        150,
        least=60,
        cuda=True,
        after=("weekly step",),
    ),
    Step(
        "oven epoch",
        "benchmarks.gpu.retrieval:oven_epoch",
        600,
        least=150,
        cuda=True,
        after=("weekly step",),
    ),
)
