"""Golden bytes: nothing that a log, a record, a model, an error or a file name holds drives the
terminal, whichever command shows it (CWE-150)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks import hostile
from tests.fixtures.terminals import ROOT, Terminal, assert_sane, workbench
from workbench.cli import main

SHOWN = (["ps", "--all"], ["results", "list"], ["results", "show", "02"], ["report", "weekly"],
         ["attach", "weekly"], ["data", "list"], ["models"], ["presets"])  # fmt: skip
"""Commands that have something of the attacker's to show."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose log root and catalogs were written by an attacker."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("WORKBENCH_LOCKS", str(tmp_path / "runtime"))
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "logs").mkdir()
    return tmp_path


def run(here: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words], cwd=here, capture_output=True, timeout=180,
        env={**os.environ, "WORKBENCH_LOG_ROOT": str(here / "logs"), **environment}, check=False,
    )  # fmt: skip


COMMANDS = [
    ["ps", "--all"],
    ["ps", "--all", "--json"],
    ["results", "list"],
    ["results", "list", "--json"],
    ["results", "show", "02"],
    ["results", "show", "02", "--json"],
    ["report", "weekly"],
    ["report", "weekly", "--lang", "ko"],
    ["attach", "weekly"],
    ["attach", "weekly", "--json"],
    ["data", "list"],
    ["data", "list", "--json"],
    ["models"],
    ["models", "--json"],
    ["presets"],
    ["run", "--preset", "bad", "--dry-run"],
    ["run", "--preset", "x\x1b]0;owned\x07\x1b[6n"],
    ["run", "-e", "probe", "-d", hostile.EVIL, "-m", hostile.EVIL],
    ["run", "nothing\x1b]0;owned\x07.toml"],
    ["data", "build", hostile.EVIL],
    ["results", "show", hostile.EVIL],
    ["stop", hostile.EVIL],
    ["bad\x1b]0;owned\x07", "x\x1b[6n"],
    ["doctor"],
]


IN_A_PROCESS = ("report", "doctor")
"""What starts processes of its own runs in one, and so does what has a control character in its
words, which are refused before a command is looked for. The others run here, for a tenth."""


def run_here(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> subprocess.CompletedProcess[bytes]:
    monkeypatch.setattr(sys, "argv", ["workbench", *words])
    with pytest.raises(SystemExit) as ending:
        main.main()
    return subprocess.CompletedProcess(
        words, int(ending.value.code or 0), *capfdbinary.readouterr()
    )


@pytest.mark.parametrize("words", COMMANDS, ids=lambda w: ascii(" ".join(w))[1:40])
def test_no_command_lets_a_control_character_through(
    here: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    hostile.root(here / "logs", at_work=words[0] != "attach")
    hostile.catalogs(here / "config")
    if words[0] in IN_A_PROCESS or not "".join(words).isprintable():
        done = run(here, *words)
    else:
        monkeypatch.chdir(here)
        monkeypatch.setenv("WORKBENCH_LOG_ROOT", str(here / "logs"))
        done = run_here(words, monkeypatch, capfdbinary)
    for output in (done.stdout, done.stderr):
        assert hostile.raw(output) == set()
        assert hostile.traces(output) == []
    assert done.stdout or done.stderr
    assert b"Traceback" not in done.stderr
    if words in SHOWN:
        assert b"evil" in done.stdout + done.stderr, "the text itself is shown"


def test_the_live_table_writes_no_sequence_of_a_log(here: Path) -> None:
    """On a terminal `attach` paints with CSI sequences of its own, and those are all there are."""
    hostile.root(here / "logs", at_work=False)
    terminal = Terminal(
        ["-m", "workbench", "attach", "weekly"], (200, 40), WORKBENCH_LOG_ROOT=str(here / "logs")
    )
    terminal.wait()
    os.close(terminal.master)
    assert b"evil" in terminal.output
    assert hostile.traces(terminal.output) == []
    after = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", terminal.output)
    assert b"\x1b" not in after


def test_no_screen_lets_a_control_character_through(here: Path) -> None:
    hostile.root(here / "logs")
    hostile.catalogs(here / "config")
    with workbench(here / "logs", (160, 50)) as terminal:
        terminal.until("Live", 20)
        terminal.press(b"2")
        terminal.until("evil", 20)
        for key in (b"j", b"j", b"\t", b"\t", b"?", b"\x1b"):
            terminal.press(key)
            terminal.settle(0.4)
        terminal.press(b"3")
        terminal.until("1 run", 20)
        terminal.press(b"\r")
        terminal.until("evil", 20)
        for _ in range(5):
            terminal.press(b"\x1b[6~")  # page down through the record
            terminal.settle(0.2)
        terminal.press(b"\x1b")
        terminal.settle(0.4)
        for key in (b"4", b"1", b"p", b"\x1b", b"e", b"\x1b"):
            terminal.press(key)
            terminal.settle(0.7)
        terminal.press(b"\x11")
        assert terminal.wait() == 0
        assert hostile.traces(terminal.output) == []
        assert_sane(terminal)


def test_a_fault_of_ours_is_told_without_driving_the_terminal(here: Path) -> None:
    code = (
        "import sys\nsys.argv = ['workbench', 'models']\n"
        "from workbench import __main__; from engines import model_catalog\n"
        "def broken(*_, **__): raise RuntimeError('\\x1b]0;owned\\x07 evil')\n"
        "model_catalog.names = broken\n__main__.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=180, check=False
    )
    assert done.returncode == 1
    assert b"evil" in done.stderr
    assert b"fault of ours" in done.stderr
    assert hostile.raw(done.stderr) == set()
