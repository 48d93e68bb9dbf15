"""The real thing on a pseudo-terminal: what it shows, and a terminal that is sane at every end."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from tests.fixtures.terminals import MODES_ON, ROOT, Terminal, assert_sane, workbench
from tests.workbench.tui import sample_suites


@pytest.mark.parametrize(
    "end",
    [b"\x03", signal.SIGTERM, signal.SIGHUP],
    ids=["ctrl-c", "SIGTERM with a dialog open", "SIGHUP"],
)
def test_terminal_is_restored_at_every_end(log_root: Path, end: bytes | signal.Signals) -> None:
    with workbench(log_root) as terminal:
        terminal.until("4 runs")
        assert terminal.modes_left_on() == MODES_ON
        assert termios.tcgetattr(terminal.master) != terminal.before
        if isinstance(end, bytes):
            terminal.press(end)
        else:
            if end == signal.SIGTERM:
                terminal.press(b"?")
                terminal.until("Everywhere")
            os.kill(terminal.pid, end)
        assert terminal.wait() == 0
        assert_sane(terminal)


def test_a_dropped_line_ends_it(log_root: Path) -> None:
    with workbench(log_root) as terminal:
        terminal.until("4 runs")
        os.close(terminal.master)
        assert gone_within(terminal.pid, 5.0)


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


def test_a_terminal_that_cannot_gets_a_sentence(log_root: Path) -> None:
    with workbench(log_root, TERM="dumb") as terminal:
        assert terminal.wait() == 2
        assert b"--headless" in terminal.output
        assert b"\x1b" not in terminal.output


def test_no_color_sends_none(log_root: Path) -> None:
    sample_suites.busy_root(log_root)
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


def test_the_kernels_console_shows_all_screens_without_braille(log_root: Path) -> None:
    sample_suites.busy_root(log_root)
    with workbench(log_root, TERM="linux") as terminal:
        terminal.until("4 runs")
        terminal.press(b"2")
        terminal.until("2,616 steps")
        assert not any(0x2800 < ord(c) < 0x2900 for c in terminal.text)
        terminal.press(b"q")
        assert terminal.wait() == 0


def test_watching_costs_next_to_nothing(log_root: Path) -> None:
    """The reader's share of the half percent that observing a run may cost: idle, it rests."""
    sample_suites.busy_root(log_root)
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
        "told = [' '.join(sorted(early)), ' '.join(sorted(late)), str(sys.getswitchinterval())]\n"
        "Path(sys.argv[2]).write_text('\\n'.join(told))\n"
        "sys.exit(code)\n"
    )
    sample_suites.busy_root(log_root)
    sample_suites.write_records(log_root, 20)
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
    early, late, (interval,) = (set(line.split()) for line in told.read_text().splitlines())
    assert float(interval) < 0.005, "a thread that reads gives keys their turn sooner"
    assert not early & {"pydantic", "engines", "datasets_mm", "pandas", "numpy", "torch"}
    assert not late & {"torch", "transformers", "pandas", "pyarrow", "matplotlib"}


ASCII = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
         "PYTHONIOENCODING": "ascii"}  # fmt: skip


def test_without_utf8_all_screens_are_drawn_in_ascii(log_root: Path) -> None:
    sample_suites.busy_root(log_root)
    sample_suites.write_records(log_root, 5)
    with workbench(log_root, (100, 30), **ASCII) as terminal:
        terminal.until("4 runs")
        terminal.press(b"2")
        terminal.until("2,616 steps")
        terminal.press(b"3")
        terminal.until("5 runs")
        terminal.press(b"q")
        assert terminal.wait() == 0
        assert terminal.output.isascii()
        assert_sane(terminal)


@pytest.mark.parametrize(
    "words",
    [["attach"], ["results", "show", "x/"], ["doctor"], ["report"]],
    ids=" ".join,
)
def test_without_utf8_no_command_fails(log_root: Path, words: list[str]) -> None:
    """Box drawing, arrows and Korean become the nearest plain characters, never an exception."""
    folder = sample_suites.make_suite(log_root, [("one", "m"), ("two", "m")], name="x")
    journal = sample_suites.begin(folder, 1)
    sample_suites.finish(journal, sample_suites.train(journal, 60, 60), "okvqa_test")
    for number in (1, 2):
        built = sample_suites.record(folder.name, number, random.Random(number))
        label = built.identity.model_copy(update={"label": "\uad6d\uae30 \u2192 \u2588"})
        built = built.model_copy(update={"identity": label})
        sample_suites.append_record(log_root, built)
    terminal = Terminal(
        ["-m", "workbench", *words], (120, 30), WORKBENCH_LOG_ROOT=str(log_root), **ASCII
    )
    status = terminal.wait(30)
    os.close(terminal.master)
    assert status in (0, 1, 2, 5), terminal.text
    assert b"Traceback" not in terminal.output
    assert b"EncodeError" not in terminal.output
    if words != ["report"]:  # Markdown is UTF-8 wherever it goes
        assert terminal.output.isascii()


def test_no_window_is_too_small_or_too_large(log_root: Path) -> None:
    sample_suites.busy_root(log_root)
    sample_suites.write_records(log_root, 5)
    with workbench(log_root, (1, 1)) as terminal:
        terminal.until_raw()
        for size in ((1, 1), (300, 80)):
            terminal.resize(*size)
            for key in (b"2", b"3", b"\r", b"\x1b", b"1", b"?", b"\x1b"):
                for _ in range(4):
                    terminal.read(0.1)
                terminal.press(key)
        terminal.read(0.3)
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait() == 0, terminal.output[-2000:]
        assert b"Traceback" not in terminal.output
        assert_sane(terminal)


def test_a_signal_in_the_first_moment_leaves_the_terminal_sane(log_root: Path) -> None:
    with workbench(log_root) as terminal:
        terminal.until_raw()
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.wait(30) == 0, terminal.output[-2000:]
        assert_sane(terminal)


def test_a_window_that_changes_and_old_mouse_reports_past_column_95_are_no_crash(
    log_root: Path,
) -> None:
    sample_suites.busy_root(log_root)
    with workbench(log_root, (120, 36)) as terminal:
        terminal.until("4 runs")
        terminal.press(b"2")
        for columns, lines in ((30, 10), (200, 60), (80, 24), (10, 3), (250, 20), (120, 36)):
            terminal.resize(columns, lines)
            for _ in range(4):
                terminal.read(0.05)
        terminal.until("2,616 steps")
        for x in (94, 95, 96, 150, 222):
            terminal.press(b"\x1b[M" + bytes((32, min(255, 33 + x), 40)))
        terminal.press(b"\xff\xfe\xc3")
        terminal.press(b"3")
        terminal.until("No records yet.")
        terminal.press(b"q")
        assert terminal.wait() == 0
        assert_sane(terminal)


def test_a_line_that_drops_under_nohup_leaves_nothing_spinning(log_root: Path) -> None:
    """SIGHUP ignored: only the end of the terminal's file tells; Textual alone spun at 77 %."""
    script = "import signal, sys, runpy\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    script += "sys.argv = ['workbench', *sys.argv[1:]]\nrunpy.run_module('workbench', None, "
    script += "'__main__')\n"
    sample_suites.busy_root(log_root)
    terminal = Terminal(["-c", script, "--log-root", str(log_root)])
    terminal.until("4 runs")
    os.close(terminal.master)
    assert gone_within(terminal.pid, 5.0)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_tmux_detached_and_attached_again_at_another_size(log_root: Path, tmp_path: Path) -> None:
    """The screen goes on while nobody looks, and fits whoever looks next."""
    sample_suites.busy_root(log_root)
    socket = str(tmp_path / "tmux")

    def tmux(*words: str, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["tmux", "-f", "/dev/null", "-S", socket, *words], capture_output=True, text=True,
            timeout=180, check=False, **options,
        )  # fmt: skip

    def shows(words: str) -> None:
        deadline = time.monotonic() + 20
        while words not in (screen := tmux("capture-pane", "-p").stdout):
            assert time.monotonic() < deadline, screen
            time.sleep(0.1)

    command = f"{sys.executable} -m workbench --log-root {log_root}; echo ended $?; sleep 60"
    started = tmux("new-session", "-d", "-x", "100", "-y", "30", command, cwd=ROOT)
    assert started.returncode == 0, started.stderr
    try:
        shows("4 runs")
        for size in ((200, 50), (30, 10), (120, 36)):
            client = Tmux(socket, size)
            client.until_drawn()
            client.press(b"\x1b[M" + bytes((32, 250, 40)))  # X10 mouse report past column 95
            client.close()  # the line drops; the session stays
        client = Tmux(socket, (120, 36))
        client.press(b"2")
        shows("2,616 steps")
        client.press(b"q")
        shows("ended 0")
        client.close()
    finally:
        tmux("kill-server")


class Tmux:
    """A client of a tmux session, in a window of its own size."""

    def __init__(self, socket: str, size: tuple[int, int]) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.environ["TERM"] = "xterm-256color"
            os.execvp("tmux", ["tmux", "-f", "/dev/null", "-S", socket, "attach"])
        window = struct.pack("HHHH", size[1], size[0], 0, 0)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, window)

    def until_drawn(self) -> None:
        """Take what it paints for a moment."""
        deadline = time.monotonic() + 0.8
        while time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.1)[0]:
                os.read(self.master, 65_536)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def close(self) -> None:
        os.close(self.master)
        os.waitpid(self.pid, 0)
