"""The project's own tests that need a GPU, without those that write a 3B."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu.report import Report

ROOT = Path(__file__).resolve().parents[2]
MARK = re.compile(r"mark\.gpu\b")
LARGE = tuple(
    f"tests/engines/{engine}/memory/test_estimate_gpu.py" for engine in ("captioning", "retrieval")
)
"""They draw and write models of 7.5 and 1.9 GB; `pytest -m gpu tests` runs them too."""
LINE = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL)")


def gpu_files() -> list[Path]:
    """Test files that have the mark, in a fixed order."""
    files = (
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if str(path.relative_to(ROOT)) not in LARGE
    )
    return [path for path in files if MARK.search(path.read_text("utf-8"))]


def gpu_tests(report: Report) -> None:
    """`pytest -m gpu`, each outcome as it comes. Warnings are shown, and fail nothing."""
    # Without the project's own options: --strict-config refuses where a plugin is not installed.
    command = [
        sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider",
        "-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=default",
        f"--basetemp={report.scratch / 'pytest'}",
        *(str(path.relative_to(ROOT)) for path in gpu_files()),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    outcomes = []
    for line in process.stdout:
        print(line, end="", flush=True)  # to log.txt
        if match := LINE.match(line):
            outcomes.append(match[2])
            name = match[1].rpartition("/")[2]
            report.check(name, match[2] not in ("FAILED", "ERROR"), match[2].lower())
    code = process.wait()
    report.check("pytest ends well", code == 0, f"exit code {code}")
    report.check("at least one test ran", "PASSED" in outcomes, f"{len(outcomes)} outcomes")
