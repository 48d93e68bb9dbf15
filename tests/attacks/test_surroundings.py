"""What lies around a run: files that would shadow modules, sockets, temporary files, links."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from engines.protocol import RunSpec
from tests.fixtures.terminals import ROOT, Terminal
from workbench import paths
from workbench.planning import plan
from workbench.suites import control, suite, suite_reader
from workbench.suites.control import Command

PROBE = ["-e", "probe", "-d", "none", "-m", "none"]
SHADOWS = ("torch", "json", "pydantic", "logging", "results", "engines", "workbench", "textual",
           "typing", "pynvml", "datasets_mm", "sitecustomize", "usercustomize")  # fmt: skip
COMMAND = Path(sys.executable).with_name("workbench")


def environment(here: Path, **more: str) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin", "HOME": str(here / "home"), "LANG": "C.UTF-8",
        "WORKBENCH_CACHE": str(here / "cache"), "WORKBENCH_CONFIG": str(here / "config"),
        "WORKBENCH_LOCKS": str(here / "runtime"), "TMPDIR": str(here / "tmp"), **more,
    }  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "work").mkdir()
    return tmp_path


def workbench(here: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(COMMAND), *words], cwd=here / "work", env=environment(here, **more), text=True,
        capture_output=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.fixture
def shadows(here: Path) -> Path:
    """A folder of somebody's data in which modules lie; each notes that it was imported."""
    ran = here / "ran"
    for name in SHADOWS:
        body = f"open({str(ran)!r}, 'a').write(__name__ + '\\n')\n"
        (here / "work" / f"{name}.py").write_text(body)
    return ran


def test_no_command_imports_from_the_current_folder_or_leaves_temporary_files(
    here: Path, shadows: Path
) -> None:
    """Command, warden, guard, engine, sampler, report child, doctor's children, builder. Neither a
    predictable name that a neighbour could have put there, nor any file at all."""
    done = workbench(here, "run", *PROBE, "--set", "steps=5", "--headless")
    assert done.returncode == 0, done.stderr
    for words in (["report", "--out", "out"], ["results", "list"], ["doctor"], ["models"],
                  ["data", "list"]):  # fmt: skip
        shown = workbench(here, *words)
        assert shown.returncode in (0, 1), shown.stderr
        assert "Traceback" not in shown.stderr
    workbench(here, "data", "build", "no_such_subset")
    assert not shadows.exists(), shadows.read_text()
    assert list((here / "tmp").iterdir()) == []


def test_the_screen_and_what_it_starts_import_nothing_from_there(here: Path, shadows: Path) -> None:
    (here / "work" / "bench_logs").mkdir()
    os.chdir(here / "work")
    try:
        terminal = Terminal([str(COMMAND)], **environment(here))
        terminal.until("Live", 20)
        terminal.press(b"2")
        terminal.until("o Suites", 20)
        terminal.press(b"\x11")
        assert terminal.wait() == 0
        os.close(terminal.master)
    finally:
        os.chdir(ROOT)
    assert not shadows.exists(), shadows.read_text()


def test_children_get_the_safe_path_whoever_started_us() -> None:
    variables = paths.module_path({"PYTHONPATH": "/elsewhere"})
    assert variables["PYTHONSAFEPATH"] == "1"
    assert variables["PYTHONPATH"].split(os.pathsep)[-1] == "/elsewhere"


def listening() -> set[str]:
    """Local addresses that anything on this machine listens on."""
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] in ("0A", "07"):
                found.add(f"{table} {fields[1]} {fields[9]}")
    return found


def sockets_of(folder: Path) -> list[str]:
    """Sockets that processes working under a folder hold."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not (process / "cwd").readlink().is_relative_to(folder):
                continue
            found += [
                f"{process.name}: {link}"
                for fd in (process / "fd").iterdir()
                if (link := str(fd.readlink())).startswith("socket:")
            ]
        except OSError:
            continue
    return found


def test_nothing_listens_and_nothing_holds_a_socket(here: Path) -> None:
    endless = ["--set", "steps=1000000", "--set", "delay_seconds=0.01", "--detach"]
    started = workbench(here, "run", *PROBE, *endless)
    folder = here / "work" / "bench_logs" / started.stdout.strip()
    deadline = time.monotonic() + 20
    while not suite_reader.SuiteReader(folder).poll().runs[0].state.step:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    try:
        assert sockets_of(here / "work") == []
    finally:
        control.send_command(folder, Command(do="stop"))
        while not suite_reader.SuiteReader(folder).poll().ended:
            time.sleep(0.05)


RUNS = "runs/01-probe-none-none"
LINKS = {
    "locks and logs": ("warden.log", "warden.lock"),
    "journals": (f"{RUNS}/events.jsonl", f"{RUNS}/engine.log"),
    "the rest": (".warden.json.new", f"{RUNS}/.summary.json.new", "control.jsonl"),
}
START = """
import sys
from pathlib import Path
from workbench.suites import control
from workbench.supervisor import launch
folder = Path(sys.argv[1])
for act in (lambda: launch.start_warden(folder).popen.wait(30),
            lambda: control.send_command(folder, control.Command(do="stop"))):
    try:
        act()
    except (OSError, launch.LaunchError) as error:
        print(type(error).__name__)
"""


@pytest.mark.parametrize("group", LINKS)
def test_a_link_in_a_suite_folder_is_not_written_through(here: Path, group: str) -> None:
    """Somebody who can write into a results folder must not write into others' files by us."""
    victim = here / "victim"
    victim.write_text("precious\n")
    spec = RunSpec(
        suite="", run_id="01-probe-none-none", engine="probe", subset="none", model="none",
        params={"steps": 5}, cache_root=str(here / "cache"),
    )  # fmt: skip
    asked = plan.SuitePlan(name="x", engines="probe", subsets="none", models="none")
    made = suite.create_suite(here / "logs", asked, [spec])
    for name in LINKS[group]:
        (made / name).symlink_to(victim)
    subprocess.run(
        [sys.executable, "-c", START, str(made)], cwd=here / "work",
        env={**environment(here), "PYTHONPATH": str(ROOT)},
        capture_output=True, timeout=180, check=False,
    )  # fmt: skip
    assert victim.read_text() == "precious\n"


@pytest.mark.parametrize(
    "name", ["../../escape", "/etc/cron.d/x", "a/b", "..", "x\0y", "\x1b]0;t\x07", "x" * 200]
)
def test_a_run_id_is_no_path(name: str) -> None:
    with pytest.raises(ValidationError):
        RunSpec(suite="", run_id=name, engine="probe", subset="a", model="b", cache_root="c")
