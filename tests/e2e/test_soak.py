"""A slice of the soak: random `kill -9`s over a real suite, and nothing is lost or left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_slice_of_the_soak() -> None:
    command = [
        sys.executable, "-m", "benchmarks.soak", "--kills", "3", "--seconds", "30", "--runs", "1"
    ]  # fmt: skip
    done = subprocess.run(
        [*command, "--seed", "7"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["broken"] == []
    assert said["kills"] >= 3
    assert said["runs compared"] >= 1
