"""Odd surroundings of a command: exit codes of the contract, sentences, nothing half-written."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.terminals import ROOT
from workbench.exit_codes import ExitCode
from workbench.suites import suite, suite_reader

PROBE = ("run", "-e", "probe", "-d", "none", "-m", "none", "--headless", "--set", "steps=3")
COMMANDS = (
    PROBE, (*PROBE, "--detach"), (*PROBE, "--dry-run"), ("ps", "--all"), ("results", "list"),
    ("presets",), ("models",), ("data", "list"), ("report",), ("resume",), ("stop",), ("doctor",),
    ("plan", "-p", "demo"),
)  # fmt: skip


@dataclass(frozen=True)
class Oddity:
    """One thing that is odd about a process."""

    name: str
    variables: dict[str, str | None] = field(default_factory=dict)
    """None: not set."""
    prepare: Callable[[], object] | None = None
    """Runs in the child before the command."""

    def __repr__(self) -> str:
        return self.name


def limit(kind: int, value: int) -> Callable[[], object]:
    return lambda: resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def close(*descriptors: int) -> Callable[[], object]:
    return lambda: [os.close(descriptor) for descriptor in descriptors]


def refuse_signals() -> None:
    for name in ("SIGHUP", "SIGINT", "SIGCHLD", "SIGUSR1", "SIGPIPE"):
        signal.signal(signal.Signals[name], signal.SIG_IGN)
    blocked = [signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP]
    signal.pthread_sigmask(signal.SIG_BLOCK, blocked)


ODDITIES = (
    Oddity("no HOME, no PATH, an unknown time zone and locale, a narrow, unknown terminal", {
        "HOME": None, "PATH": None, "TZ": "Nowhere/Nothing", "LC_ALL": "xx_YY.latin9", "LANG": None,
        "PYTHONUTF8": "0", "TERM": "no-such", "COLUMNS": "1", "LINES": "0"}),
    Oddity("HOME is a file, foreign XDG folders, a notebook's backend", {
        "HOME": "/dev/null", "MPLBACKEND": "module://nowhere", **{
            f"XDG_{n}": "/proc/1/nowhere" for n in (
                "RUNTIME_DIR", "CACHE_HOME", "CONFIG_HOME", "STATE_HOME")}}),
    Oddity("HOME is gone, no folder for temporary files, CUDA variables of another world", {
        "HOME": "/nonexistent/home", "TMPDIR": "/nonexistent",
        "CUDA_VISIBLE_DEVICES": "-1,GPU-x,ü"}),
    Oddity("HOME is relative, a hook's GIT_DIR, a thread count of letters, colours forced", {
        "HOME": "home", "GIT_DIR": "/nowhere", "OMP_NUM_THREADS": "abc", "FORCE_COLOR": "1"}),
    Oddity("cache below a file", {"WORKBENCH_CACHE": "/dev/null/cache"}),
    Oddity("cache that nobody may write", {"WORKBENCH_CACHE": "/proc/cache"}),
    Oddity("locks that nobody may write", {"WORKBENCH_LOCKS": "/sys/locks"}),
    Oddity("log root below a file", {"WORKBENCH_LOG_ROOT": "/dev/null/logs"}),
    Oddity("log root in the home", {"WORKBENCH_LOG_ROOT": "~/logs"}),
    Oddity("a grace of letters", {"WORKBENCH_GRACE": "abc"}),
    Oddity("Python's debugging aids", {"PYTHONINSPECT": "1", "PYTHONWARNINGS": "error",
        "PYTHONDEVMODE": "1", "PYTHONTRACEMALLOC": "25", "PYTHONOPTIMIZE": "2"}),
    Oddity("variables of a file without a shell", {
        "WORKBENCH_LOG_ROOT": "'$HOME/logs'\r", "WORKBENCH_GRACE": "", "XDG_CACHE_HOME": "here"}),
    Oddity("an unset variable in a folder", {"WORKBENCH_LOG_ROOT": "$NOT_SET/logs"}),
    Oddity("standard input closed", prepare=close(0)),
    Oddity("nothing is open", prepare=close(0, 1, 2)),
    Oddity("few descriptors", prepare=limit(resource.RLIMIT_NOFILE, 24)),
    Oddity("files of no size", prepare=limit(resource.RLIMIT_FSIZE, 0)),
    Oddity("signals ignored and blocked", prepare=refuse_signals),
)  # fmt: skip

ALLOWED = {int(status) for status in ExitCode}


def run(here: Path, words: tuple[str, ...], oddity: Oddity) -> subprocess.CompletedProcess[str]:
    variables: dict[str, str | None] = {
        "PATH": "/usr/bin:/bin", "HOME": str(here), "PYTHONPATH": str(ROOT),
        "WORKBENCH_CACHE": str(here / "cache"), "WORKBENCH_CONFIG": str(here / "config"),
        "WORKBENCH_LOCKS": str(here / "locks"), **oddity.variables,
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words], cwd=here, text=True, errors="replace",
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True, timeout=120, check=False,
        preexec_fn=oddity.prepare,
    )  # fmt: skip


def assert_contract(here: Path, words: tuple[str, ...], oddity: Oddity) -> None:
    done = run(here, words, oddity)
    text = f"{words} with {oddity}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert done.returncode in ALLOWED, text
    assert "Traceback" not in done.stderr, text
    assert "fault of ours" not in done.stderr, text
    if done.returncode == ExitCode.USAGE:
        assert not list(here.glob("bench_logs/*/plan.toml")), f"half-written: {text}"
        assert done.stderr or "open" in oddity.name, text


@pytest.mark.parametrize("oddity", ODDITIES, ids=repr)
def test_a_run_in_an_odd_environment(tmp_path: Path, oddity: Oddity) -> None:
    assert_contract(tmp_path, PROBE, oddity)
    for folder in suite.list_suites(tmp_path / "bench_logs"):
        assert suite_reader.SuiteReader(folder).poll().ended, f"{folder} was left at work"


@settings(
    max_examples=int(os.environ.get("WORKBENCH_FUZZ_EXAMPLES", "8")), deadline=None,
    suppress_health_check=list(HealthCheck), derandomize=True,
)  # fmt: skip
@given(
    words=st.sampled_from([words for words in COMMANDS if words != PROBE]),
    oddities=st.lists(st.sampled_from(ODDITIES), min_size=1, max_size=3, unique_by=repr),
)
def test_any_command_in_several_odd_environments_at_once(
    tmp_path_factory: pytest.TempPathFactory, words: tuple[str, ...], oddities: list[Oddity]
) -> None:
    here = tmp_path_factory.mktemp("odd")
    variables: dict[str, str | None] = {}
    for oddity in oddities:
        variables |= oddity.variables
    steps = [oddity.prepare for oddity in oddities if oddity.prepare is not None]

    def prepare() -> None:
        for step in sorted(steps, key=lambda step: "close" in step.__qualname__):
            try:
                step()
            except OSError:  # two of them close the same descriptor
                continue

    assert_contract(here, words, Oddity(" + ".join(map(repr, oddities)), variables, prepare))
    if "--detach" in words:
        for folder in suite.list_suites(here / "bench_logs"):
            run(here, ("stop", folder.name), Oddity("none"))
