"""The real thing on a pseudo-terminal: what it shows, and a terminal that is sane at every end."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from tests.fixtures.terminals import MODES_ON, ROOT, Terminal, assert_sane, workbench
from tests.tui import canned


@pytest.mark.parametrize(
    "end",
    [b"q", b"\x11", b"\x03", signal.SIGTERM, signal.SIGHUP],
    ids=["q", "ctrl-q", "ctrl-c", "SIGTERM", "SIGHUP"],
)
def test_terminal_is_restored_at_every_end(log_root: Path, end: bytes | signal.Signals) -> None:
    with workbench(log_root) as terminal:
        terminal.until("4 runs")
        assert terminal.modes_left_on() == MODES_ON
        assert termios.tcgetattr(terminal.master) != terminal.before
        if isinstance(end, bytes):
            terminal.press(end)
        else:
            os.kill(terminal.pid, end)
        assert terminal.wait() == 0
        assert_sane(terminal)


def test_a_signal_while_a_dialog_is_open(log_root: Path) -> None:
    with workbench(log_root) as terminal:
        terminal.until("4 runs")
        terminal.press(b"?")
        terminal.until("Everywhere")
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 0
        assert_sane(terminal)


def test_old_mouse_reports_past_column_95_are_no_crash(log_root: Path) -> None:
    with workbench(log_root, (120, 36)) as terminal:
        terminal.until("4 runs")
        for x in (94, 95, 96, 150, 222):
            terminal.press(b"\x1b[M" + bytes((32, min(255, 33 + x), 40)))
        terminal.press(b"\xff\xfe\xc3")
        terminal.press(b"3")
        terminal.until("No records yet.")
        terminal.press(b"q")
        assert terminal.wait() == 0
        assert_sane(terminal)


def test_a_dropped_line_ends_it(log_root: Path) -> None:
    with workbench(log_root) as terminal:
        terminal.until("4 runs")
        os.close(terminal.master)
        assert gone_within(terminal.pid, 5.0)


def test_end_of_file_alone_ends_it(log_root: Path) -> None:
    """Without a SIGHUP (another session's terminal) the app once span for ever."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "workbench", "--log-root", str(log_root)]
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    ) as child:
        os.close(slave)
        seen, deadline = b"", time.monotonic() + 15
        while b"Results" not in seen and time.monotonic() < deadline:
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65_536)
        os.close(master)
        try:
            assert child.wait(5.0) == 0
        finally:
            child.kill()


def gone_within(pid: int, seconds: float) -> bool:
    """Whether the process ends by itself, with code 0."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    return False


def test_a_fault_of_ours_restores_the_terminal_and_is_no_success(
    log_root: Path, tmp_path: Path
) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom workbench.tui import app\n"
        "def broken(self): raise RuntimeError('\\x1b]0;title\\x07 oops')\n"
        "app.WorkbenchApp.action_help = broken\n"
        "sys.exit(app.main(Path(sys.argv[1])))\n"
    )
    terminal = Terminal([str(script), str(log_root)])
    terminal.until("4 runs")
    terminal.press(b"?")
    assert terminal.wait() == 1
    assert_sane(terminal)
    after = terminal.output[terminal.output.rindex(b"\x1b[?1049l") :]
    assert b"oops" in after
    assert b"\x1b]0;" not in after
    os.close(terminal.master)


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_that_cannot_gets_a_sentence(log_root: Path, term: str) -> None:
    with workbench(log_root, TERM=term) as terminal:
        assert terminal.wait() == 2
        assert b"--headless" in terminal.output
        assert b"\x1b" not in terminal.output


def test_no_color_sends_none(log_root: Path) -> None:
    canned.busy_root(log_root)
    with workbench(log_root, NO_COLOR="1") as terminal:
        terminal.until("4 runs")
        terminal.press(b"2")
        terminal.until("2,616 steps")
        terminal.press(b"3")
        terminal.until("No records yet.")
        terminal.press(b"q")
        assert terminal.wait() == 0
        styles = re.findall(rb"\x1b\[([0-9;]*)m", terminal.output)
        numbers = {int(n) for style in styles for n in style.split(b";") if n}
        assert not numbers & {*range(30, 39), *range(40, 49), *range(90, 98), *range(100, 108)}


@pytest.mark.parametrize("term", ["linux", "tmux-256color"])
def test_other_terminals_show_all_screens(log_root: Path, term: str) -> None:
    canned.busy_root(log_root)
    with workbench(log_root, TERM=term) as terminal:
        terminal.until("4 runs")
        terminal.press(b"2")
        terminal.until("2,616 steps")
        braille = any(0x2800 < ord(c) < 0x2900 for c in terminal.text)
        assert braille is (term != "linux")  # the kernel's console has no such glyphs
        terminal.press(b"q")
        assert terminal.wait() == 0


def test_watching_costs_next_to_nothing(log_root: Path) -> None:
    """The reader's share of the half percent that observing a run may cost: idle, it rests."""
    canned.busy_root(log_root)
    with workbench(log_root, (120, 36)) as terminal:
        terminal.until("4 runs")
        terminal.press(b"2")
        terminal.until("2,616 steps")
        settle = time.monotonic() + 1.0
        while time.monotonic() < settle:
            terminal.read(0.1)
        process = psutil.Process(terminal.pid)
        before, began = process.cpu_times(), time.monotonic()
        while time.monotonic() < began + 4.0:
            terminal.read(0.1)
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        assert used / 4.0 < 0.05, f"{used / 4.0:.1%} of a core"


def test_it_loads_nothing_heavy(log_root: Path, tmp_path: Path) -> None:
    """Before the first frame Textual only; ever: no torch, pandas, transformers."""
    script = tmp_path / "modules.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom workbench.tui import app\n"
        "early = {m.partition('.')[0] for m in sys.modules}\n"
        "code = app.main(Path(sys.argv[1]))\n"
        "late = {m.partition('.')[0] for m in sys.modules}\n"
        "Path(sys.argv[2]).write_text(' '.join(sorted(early)) + '\\n' + ' '.join(sorted(late)))\n"
        "sys.exit(code)\n"
    )
    canned.busy_root(log_root)
    canned.write_records(log_root, 20)
    told = tmp_path / "told"
    terminal = Terminal([str(script), str(log_root), str(told)])
    terminal.until("4 runs")
    terminal.press(b"2")
    terminal.until("2,616 steps")
    terminal.press(b"3")
    terminal.until("20 runs")
    terminal.press(b"q")
    assert terminal.wait() == 0
    os.close(terminal.master)
    early, late = (set(line.split()) for line in told.read_text().splitlines())
    assert not early & {"pydantic", "engines", "datasets_mm", "pandas", "numpy", "torch"}
    assert not late & {"torch", "transformers", "pandas", "pyarrow", "matplotlib"}
