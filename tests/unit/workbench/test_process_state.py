"""What a command inherits: closed streams, ignored signals, another program's variables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.terminals import ROOT
from workbench import process_state

REPORT = """
import os, signal, sys
from workbench import process_state
process_state.restore()
reading, writing = os.pipe()
names = [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
os.write(int(sys.argv[1]), repr((names, reading, bool(sys.stdin), bool(sys.stdout))).encode())
"""


def test_closed_standard_streams_are_opened_before_a_pipe_can_take_their_place() -> None:
    reading, writing = os.pipe()
    shell = f"exec {sys.executable} -c '{REPORT}' {writing} <&- >&- 2>&-"
    subprocess.run(["/bin/sh", "-c", shell], pass_fds=[writing], check=True, cwd=ROOT)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        names, first_pipe, has_stdin, has_stdout = eval(pipe.read())
    assert names == ["/dev/null"] * 3
    assert first_pipe > 2
    assert has_stdin
    assert has_stdout


def test_an_ignored_signal_stays_ignored_and_the_others_are_handled() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    usual = signal.getsignal(signal.SIGTERM)
    try:
        numbers = (signal.SIGHUP, signal.SIGTERM)
        with process_state.handle_signals(numbers, lambda number, _: seen.append(number)):
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is usual
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIGTERM]


def test_blocked_signals_and_an_ignored_sigchld_are_put_right() -> None:
    code = (
        "import signal, subprocess, sys\n"
        "from workbench import process_state\n"
        "process_state.restore()\n"
        "assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "sys.exit(subprocess.run([sys.executable, '-c', 'raise SystemExit(7)']).returncode)"
    )

    def spoil() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, preexec_fn=spoil, check=False)
    assert done.returncode == 7


@pytest.mark.parametrize("shape", ["package", "module"])
def test_the_command_wins_over_packages_of_its_names_on_pythonpath(
    tmp_path: Path, shape: str
) -> None:
    for name in ("results", "engines", "workbench", "datasets_mm"):
        file = tmp_path / (f"{name}/__init__.py" if shape == "package" else f"{name}.py")
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise RuntimeError('imported from PYTHONPATH')")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("workbench")), "run", "-e", "probe", "-d", "none",
         "-m", "none", "--headless", "--set", "steps=3"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path),
             "WORKBENCH_CACHE": str(tmp_path / "cache"), "MPLBACKEND": "module://nowhere",
             "WORKBENCH_LOG_ROOT": "~/logs"},
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "logs" / "results.jsonl").is_file()  # `~` without a shell
    assert not (tmp_path / "~").exists()


def test_an_installed_copy_keeps_foreign_packages_of_our_names_from_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench import paths

    foreign, harmless = tmp_path / "foreign", tmp_path / "harmless"
    (foreign / "results").mkdir(parents=True)
    harmless.mkdir()
    installed = tmp_path / "site-packages" / "workbench" / "paths.py"
    monkeypatch.setattr(paths, "__file__", str(installed))
    variables = paths.module_path({"PYTHONPATH": f"{foreign}{os.pathsep}{harmless}"})
    assert variables["PYTHONPATH"] == str(harmless)
    assert variables["MPLBACKEND"] == "agg"
