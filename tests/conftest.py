"""What holds for all tests: which warnings of a GPU are no errors; Ctrl-C is not ignored; device
locks are the tests' own, so that no suite of this machine is waited for; each begins in English.

Torch computes on one thread in the tests' own processes: two threads that spin while they wait take
five times the CPU time beside a busy process. Engines that a test starts have their own setting.

Garbage collection is paused while test modules import torch and its like, and what they made is
never searched: tests make much garbage of their own, and each full search went through all of it.
"""

import gc
import os
import re
import shutil
import signal
import sys
import tempfile

import pytest

from workbench import output_language

ONLY_ON_A_GPU = (
    "Attempting to run cuBLAS, but there was no current CUDA context! Attempting to set the "
    "primary context...",
    "Attempting to run cuFFT, but there was no current CUDA context! Attempting to set the "
    "primary context...",
    "Memory Efficient attention defaults to a non-deterministic algorithm.",
    "Flash Attention defaults to a non-deterministic algorithm.",
    "cuDNN Attention defaults to a non-deterministic algorithm.",
    "The CUDA Graph is empty. This usually means that the graph was",
    "expandable_segments not supported on this platform",
)
"""UserWarnings of torch's CUDA libraries, word for word as far as the text is fixed; the last is of
the allocator on other systems than Linux."""


def pytest_configure() -> None:
    """A shell ignores SIGINT for what it starts with `&`, and commands under test inherit that."""
    gc.disable()
    os.environ["WORKBENCH_LOCKS"] = tempfile.mkdtemp(prefix="workbench-test-locks-")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let them pass where the marker `gpu` is, and nowhere else."""
    for item in items:
        if item.get_closest_marker("gpu"):
            for message in ONLY_ON_A_GPU:
                pattern = re.escape(message).replace(":", r"\x3a")  # a colon ends the message
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{pattern}:UserWarning"))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_runtest_setup() -> None:
    output_language.set_language("en")
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def pytest_unconfigure() -> None:
    gc.unfreeze()
    shutil.rmtree(os.environ["WORKBENCH_LOCKS"], ignore_errors=True)
