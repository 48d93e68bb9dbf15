"""A search as a person starts it: the stdlib engine, Ctrl-C, `kill -9` of the searcher, resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.suites import suite, suite_reader

pytest.importorskip("optuna")

SEARCH = [
    "search", "-e", "probe", "-d", "none", "-m", "none", "--set", "steps=100", "--set",
    "delay_seconds=0.02", "--range", "rounds=1..64:log", "--range", "warmup_steps=[0,1,2]",
    "--metric", "sha256_mib_per_second", "--trials", "5", "--headless",
]  # fmt: skip


def start(here: Path, *words: str) -> subprocess.Popen[str]:
    environment = {
        "PATH": "/usr/bin:/bin", "HOME": str(here), "LANG": "C.UTF-8", "WORKBENCH_GRACE": "2",
        "WORKBENCH_CACHE": str(here / "cache"), "WORKBENCH_CONFIG": str(here / "config"),
        "WORKBENCH_LOCKS": str(here / "runtime"),
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", *words], cwd=here, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def searchers(here: Path) -> list[int]:
    """Searchers of suites below this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text()
        except OSError:
            continue
        if "workbench.tuning.searcher" in words and str(here) in words:
            found.append(int(process.name))
    return found


def until_trial(here: Path, number: int) -> Path:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for folder in suite.list_suites(here / "bench_logs"):
            state = suite_reader.SuiteReader(folder).poll()
            if len(state.runs) >= number and state.current and state.current.state.step:
                return folder
        time.sleep(0.05)
    raise AssertionError(f"trial {number} never came to work")


def test_a_search_survives_its_searcher_and_ctrl_c(tmp_path: Path) -> None:
    process = start(tmp_path, *SEARCH)
    until_trial(tmp_path, 2)
    for pid in searchers(tmp_path):
        os.kill(pid, signal.SIGKILL)
    folder = until_trial(tmp_path, 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=180)
    assert process.returncode == 130, err
    assert "trials are left (stopped by" in err
    assert f"`workbench resume {folder.name}` goes on" in err
    assert "| trial | `rounds` | `warmup_steps` |" in out
    assert searchers(tmp_path) == []

    with start(tmp_path, "resume", "--json") as again:
        out, err = again.communicate(timeout=90)
    assert again.returncode == 0, err
    assert "trials to come" in err
    state = suite_reader.SuiteReader(folder).poll()
    assert [run.state.cause for run in state.runs] == ["completed"] * 5
    chosen = [json.dumps(r.spec.trial.settings) for r in state.runs if r.spec.trial]
    assert len(set(chosen)) == 5, "no trial is repeated"
    attempts = [run.state.attempt for run in state.runs]
    assert sorted(attempts) == [1, 1, 1, 1, 2], "the interrupted one is tried again"
    records = [row for row in map(json.loads, out.splitlines()) if row["kind"] == "record"]
    assert [r["identity"]["trial"]["number"] for r in records] == [1, 2, 3, 4, 5]
    assert searchers(tmp_path) == []

    with start(tmp_path, "resume", folder.name) as nothing:
        _, err = nothing.communicate(timeout=180)
    assert nothing.returncode == 0
    assert "nothing is left to do" in err


def test_a_plain_run_of_the_kept_plan_searches_again(tmp_path: Path) -> None:
    short = [word.replace("steps=100", "steps=2") for word in SEARCH]
    with start(tmp_path, *short, "--trials", "2") as first:
        first.communicate(timeout=180)
    assert first.returncode == 0
    (folder,) = suite.list_suites(tmp_path / "bench_logs")
    with start(tmp_path, "run", str(folder / "plan.toml"), "--headless") as second:
        _, err = second.communicate(timeout=180)
    assert second.returncode == 0, err
    both = [suite.read_runs(each) for each in suite.list_suites(tmp_path / "bench_logs")]
    settings = [[spec.trial.settings for _, spec in runs if spec.trial] for runs in both]
    assert settings[0][0] == settings[1][0], "the same seed draws the same first trial"
    assert [len(each) for each in settings] == [2, 2]
