"""What a command inherits: closed streams, ignored signals, another program's variables."""

from __future__ import annotations

import getpass
import os
import pwd
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.terminals import ROOT
from workbench import __main__ as process_state
from workbench.headless.follow import handle_signals

REPORT = """
import os, signal, sys
from workbench import __main__ as process_state
process_state.restore_process_state()
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
        with handle_signals(numbers, lambda number, _: seen.append(number)):
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
        "from workbench import __main__ as process_state\n"
        "process_state.restore_process_state()\n"
        "assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])\n"
        "sys.exit(subprocess.run([sys.executable, '-c', 'raise SystemExit(7)']).returncode)"
    )

    def spoil() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, preexec_fn=spoil, check=False)
    assert done.returncode == 7


def test_the_command_wins_over_packages_of_its_names_on_pythonpath(tmp_path: Path) -> None:
    names = ("results/__init__.py", "engines.py", "workbench/__init__.py", "datasets_mm.py")
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("raise RuntimeError('imported from PYTHONPATH')")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("workbench")), "run", "-e", "probe", "-d", "none",
         "-m", "none", "--headless", "--set", "steps=3"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path),
             "WORKBENCH_CACHE": str(tmp_path / "cache"), "MPLBACKEND": "module://nowhere",
             "WORKBENCH_LOG_ROOT": "~/logs"},
        cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False,
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


def test_debugging_aids_of_python_do_not_change_what_is_measured(tmp_path: Path) -> None:
    code = (
        "import os, sys, tracemalloc\n"
        "from workbench import __main__ as process_state\n"
        "process_state.restart_without(process_state.INTERPRETER_SWITCHES)\n"
        "seen = (os.getpid(), sys.flags.inspect, sys.flags.dev_mode, sys.warnoptions,\n"
        "        tracemalloc.is_tracing(), sys.argv[1:], 'PYTHONINSPECT' in os.environ)\n"
        "print(seen, flush=True)\n"
        "raise SystemExit(7)"
    )
    aids = {"PYTHONINSPECT": "1", "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1",
            "PYTHONTRACEMALLOC": "9"}  # fmt: skip
    child = subprocess.Popen(
        [sys.executable, "-c", code, "a b", ""], env={**os.environ, **aids}, cwd=ROOT,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    said, _ = child.communicate(timeout=180)
    assert child.returncode == 7
    assert eval(said) == (child.pid, 0, False, [], False, ["a b", ""], False)


def test_a_user_without_an_entry_in_passwd_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    process_state.name_user()
    assert "USER" not in os.environ  # root, or whoever runs this, has one

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    process_state.name_user()
    assert getpass.getuser() == f"uid{os.getuid()}"
    monkeypatch.delenv("USER")
    monkeypatch.setenv("LOGNAME", "someone")
    process_state.name_user()
    assert "USER" not in os.environ


def test_as_many_files_may_be_open_as_are_allowed() -> None:
    code = (
        "import resource\n"
        "from workbench import __main__ as process_state\n"
        "process_state.restore_process_state()\n"
        "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
    )

    def limited(soft: int, hard: int) -> list[int]:
        def lower() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, preexec_fn=lower, check=True,
                              capture_output=True, text=True)  # fmt: skip
        return [int(word) for word in done.stdout.split()]

    assert limited(24, 300) == [300, 300]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 65_536
    assert limited(256, most)[0] == min(4096, most)
    assert limited(most, most)[0] == most, "never lowered"
