"""benchmarks/gpu.sh: its runner with steps that fail in every way, and all its steps at a
thousandth of their size on a CPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.gpu.journal import HEAD, Journal
from benchmarks.gpu.runner import Runner, Setup, Step
from benchmarks.gpu.steps import STEPS
from benchmarks.gpu.suite import LARGE, LINE, gpu_files
from benchmarks.gpu.vqa import find_missing_cache
from engines.vqa import Params

ROOT = Path(__file__).resolve().parents[2]
HERE = "tests.fixtures.gpu_steps"
LONG = 120.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # torch is imported in each worker


def step(name: str, function: str, seconds: float = LONG, **more: Any) -> Step:
    return Step(name, f"{HERE}:{function}", seconds, **{"least": 0.1, **more})


def run(folder: Path, steps: Sequence[Step], budget: float = 600.0) -> tuple[int, list[dict]]:
    """Exit code and entries of a run in this process."""
    setup = Setup(folder, folder / "log.txt", small=True)
    with Journal(folder) as journal:
        code = Runner(steps, journal, setup, budget).run()
    return code, entries(folder)


def entries(folder: Path) -> list[dict]:
    lines = (folder / "figures.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def standing(read: list[dict], name: str) -> tuple[str, str]:
    """How a step ended, and the remark."""
    last = [entry for entry in read if entry["step"] == name][-1]
    return last["what"], last.get("remark", "")


def ended(pid: int, seconds: float = 10.0) -> bool:
    """Whether the process is gone, or a zombie, within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_a_step_that_fails_ends_no_other(tmp_path):
    steps = [
        step("first", "measures"), step("check", "fails_a_check"), step("error", "raises"),
        step("crash", "crashes"), step("absent", "skips"), step("cuda", "measures", cuda=True),
        step("dependent", "measures", after=("check",)), step("last", "measures"),
    ]  # fmt: skip
    code, read = run(tmp_path, steps)
    assert code == 1
    assert standing(read, "first")[0] == "ok"
    assert standing(read, "check") == ("FAILED", "1 checks")
    assert standing(read, "error") == ("FAILED", "ValueError: a wrong number")
    what, remark = standing(read, "crash")
    assert what == "FAILED"
    assert "exit code 77" in remark
    assert standing(read, "absent") == ("skipped", "there is no such package")
    assert standing(read, "cuda") == ("skipped", "needs a CUDA GPU")
    assert standing(read, "dependent") == ("skipped", "means nothing after the failure of check")
    assert standing(read, "last")[0] == "ok"
    assert standing(read, "all") == (
        "{'ok': 2, 'FAILED': 3, 'skipped': 3}", "FAILED: check, error, crash",
    )  # fmt: skip
    before = {e["step"] for e in read if e["what"] == "before it"}
    assert before == {"error", "crash"}  # what was measured before a failure is kept
    pids = [entry["value"] for entry in read if entry["what"] == "pid"]
    assert len(set(pids)) == 2  # the worker is replaced after a failure
    table = (tmp_path / "figures.md").read_text().splitlines()
    assert "\n".join(table[:2]) + "\n" == HEAD
    assert len(table) == 2 + len(read)
    assert {line.count(" | ") for line in table[2:]} == {4}
    assert "ValueError: a wrong number" in (tmp_path / "log.txt").read_text()


def test_a_step_over_its_time_is_ended_with_what_it_started(tmp_path):
    steps = [step("slow", "hangs", 1.0), step("last", "measures")]
    code, read = run(tmp_path, steps)
    assert code == 1
    assert standing(read, "slow") == ("FAILED", "ended after 1 s, with the figures so far")
    assert standing(read, "last")[0] == "ok"
    pids = {e["what"]: e["value"] for e in read if e["step"] == "slow"}
    assert ended(pids["child"])
    assert ended(pids["pid"])


def test_what_no_longer_fits_the_budget_is_skipped(tmp_path):
    steps = [
        step("first", "measures"), step("large", "measures", 2 * LONG, least=0.0),
        step("small", "measures"),
    ]  # fmt: skip
    code, read = run(tmp_path, steps, budget=LONG)
    assert code == 0
    assert standing(read, "first")[0] == "ok"
    what, remark = standing(read, "large")
    assert what == "skipped"
    assert remark.startswith("needs 120 s and ")
    assert standing(read, "small")[0] == "ok"


def script(folder: Path, *words: str) -> list[str]:
    return ["benchmarks/gpu.sh", "--small", "--stretch", "8", "--budget", "1500",
            "--out", str(folder), "--folder", str(folder.parent), *words]  # fmt: skip


def environment() -> dict[str, str]:
    return os.environ | {"PYTHON": sys.executable}


def test_a_cut_run_leaves_its_figures_and_no_process(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        script(out, "--only", "environment", "cpu switch"), cwd=ROOT, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    figures, deadline = out / "figures.jsonl", time.monotonic() + 240
    while not (figures.exists() and '"environment", "what": "ok"' in figures.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    workers = [int(path.name) for path in Path("/proc").iterdir()
               if path.name.isdigit() and parent(path) == process.pid]  # fmt: skip
    os.kill(process.pid, signal.SIGKILL)  # in the middle of the second step, or before it
    process.wait()
    read = entries(out)
    assert [e["value"] for e in read if e["what"] == "torch"]
    assert len((out / "figures.md").read_text().splitlines()) == 2 + len(read)
    assert workers
    assert all(ended(pid) for pid in workers)


def parent(path: Path) -> int:
    """Parent of a process in /proc; 0 where it is gone."""
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.mark.timeout(1800)  # 3 minutes alone
def test_all_steps_at_a_thousandth_on_a_cpu(tmp_path):
    out = tmp_path / "out"
    done = subprocess.run(
        script(out), cwd=ROOT, env=environment(), capture_output=True, text=True, check=False,
        timeout=1700,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + (out / "log.txt").read_text()[-3000:]
    read = entries(out)
    for one in STEPS:
        what, remark = standing(read, one.name)
        wanted = ("skipped", "needs a CUDA GPU") if one.cuda else ("ok", "seconds")
        if one.name == "vqa step" and "feature_cache" not in Params.model_fields:
            wanted = ("skipped", "the engine has no cache of vision features")
        assert (what, remark) == wanted, one.name
    values = {(entry["step"], entry["what"]): entry["value"] for entry in read}
    assert values["weekly step", "preset: step median, ms"] > 0
    assert values["cpu switch", "--cpu runs on the CPU"] == "ok"
    assert values["run and kill", "engine killed: the record says killed"] == "ok"
    assert values["memory", "forecast of the training's tensors, bytes"] > 1 << 30
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]  # no scratch is left


def test_steps_are_ordered_and_name_steps_before_them():
    names = [one.name for one in STEPS]
    assert len(set(names)) == len(names)
    for number, one in enumerate(STEPS):
        assert set(one.after) <= set(names[:number])
        assert one.least or one.seconds


def test_no_figure_is_called_that_of_a_cache_that_was_not_used():
    kept, lost = (
        SimpleNamespace(kind="plan", facts={"feature_cache": fact})
        for fact in ("3.0 MiB; 9 pictures computed in 0.1 s", "none: takes no features")
    )
    assert not find_missing_cache([kept])
    assert find_missing_cache([lost]) == "none: takes no features"


def test_the_tests_for_a_gpu_are_chosen_without_the_large_models():
    paths = {path.relative_to(ROOT).as_posix() for path in gpu_files()}
    small = ("torchkit/training/test_step_timing.py", "retrieval/index/test_indexes.py")
    assert {f"tests/engines/{path}" for path in small} <= paths
    assert not paths & set(LARGE)
    assert all((ROOT / name).exists() for name in LARGE)
    match = LINE.match("tests/engines/test_a.py::test_b[x y] PASSED          [ 10%]")
    assert match is not None
    assert match.groups() == ("tests/engines/test_a.py::test_b[x y]", "PASSED")
