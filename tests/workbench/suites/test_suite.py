"""The suite folder: made whole, read incrementally, honest about a warden that is gone."""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path

import pytest

from engines import messages as m
from engines import protocol as p
from workbench.headless import follow
from workbench.planning import plan
from workbench.processes import tree
from workbench.suites import control, suite, suite_reader, warden_file

LOOKS = 20
"""At the orders: more than a reader needs that never stands still."""

ASKED = plan.SuitePlan(name="tiny", subsets=("a",), models=("m",))


def spec(number: int) -> p.RunSpec:
    return p.RunSpec(
        suite="", run_id=f"{number:02d}-probe-a-m", engine="probe", subset="a", model="m",
        cache_root="cache",
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return suite.create_suite(tmp_path / "logs", ASKED, [spec(1), spec(2)])


def write(folder: Path, run: str, *messages: m.Message, start: int = 0) -> None:
    with (folder / "runs" / run / "events.jsonl").open("ab") as file:
        for number, message in enumerate(messages, start):
            file.write(p.encode(p.Entry(seq=number, wall=1.0, src="warden", msg=message)))


def warden(**changes: object) -> warden_file.WardenFile:
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    mine = warden_file.WardenFile(
        pid=os.getpid(), start_ticks=int(stat[19]), host=socket.gethostname(), token="t",
        state="running",
    )  # fmt: skip
    return mine.model_copy(update=changes)


def test_a_new_suite_is_complete_and_private(folder: Path) -> None:
    assert plan.load(folder / "plan.toml") == ASKED
    assert [s.run_id for _, s in suite.read_runs(folder)] == ["01-probe-a-m", "02-probe-a-m"]
    assert all(s.suite == folder.name for _, s in suite.read_runs(folder))
    for path in (folder.parent, folder, folder / "runs" / "01-probe-a-m"):
        assert path.stat().st_mode & 0o077 == 0


def test_what_other_programs_leave_among_the_runs_is_no_run(folder: Path) -> None:
    runs = folder / "runs"
    for name in (".DS_Store", "._01-probe-a-m", "Thumbs.db", "desktop.ini", "03-file"):
        (runs / name).write_bytes(b"\0")
    for name in ("@eaDir", ".ipynb_checkpoints", "lost+found", "#recycle", ".snapshot"):
        (runs / name).mkdir()
    assert [s.run_id for _, s in suite.read_runs(folder)] == ["01-probe-a-m", "02-probe-a-m"]
    reader = suite_reader.SuiteReader(folder)
    assert [view.folder for view in reader.poll().runs] == ["01-probe-a-m", "02-probe-a-m"]
    assert sorted(suite.list_run_names(folder)) == ["01-probe-a-m", "02-probe-a-m"]


NOW = -1.0
"""The time when a test runs, which may be a quarter of an hour after it was collected."""


@pytest.mark.parametrize(
    ("changes", "lives"),
    [
        ({}, True),
        ({"host": "renamed-meanwhile"}, True),  # by DHCP, say: the kernel and its pids are the same
        ({"pid": 2**22 - 1}, False),
        ({"place": "another-boot pid:[1]", "updated_wall": NOW}, True),
        ({"place": "another-boot pid:[1]", "updated_wall": 1.0}, False),
        ({"place": "", "host": "elsewhere", "updated_wall": NOW}, True),
        ({"place": "", "host": "elsewhere"}, False),
        ({"place": ""}, True),  # as version 0.1 wrote it
    ],
)
def test_a_warden_is_looked_for_where_its_pid_means_something(
    changes: dict[str, object], lives: bool
) -> None:
    """Two containers with one host's name: its pid is not here, and it lives all the same."""
    if changes.get("updated_wall") == NOW:
        changes = {**changes, "updated_wall": time.time()}
    assert warden_file.is_alive(warden(**{"place": tree.pid_namespace(), **changes})) is lives


def test_the_hundredth_run_comes_last(tmp_path: Path) -> None:
    asked = [spec(number) for number in range(1, 111)]
    made = suite.create_suite(tmp_path, ASKED, asked)
    assert [found.run_id for _, found in suite.read_runs(made)] == [one.run_id for one in asked]


def test_two_suites_of_one_second_do_not_collide(tmp_path: Path) -> None:
    made = {suite.create_suite(tmp_path, ASKED, [spec(1)]).name for _ in range(20)}
    assert len(made) == 20
    assert {s.name for s in suite.list_suites(tmp_path)} == made


def test_nobody_meets_a_suite_that_is_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[Path] = []

    def look(specs: list[p.RunSpec], log_root: Path) -> list[p.RunSpec]:
        met.extend(suite.list_suites(log_root))
        return specs

    monkeypatch.setattr("workbench.planning.cost_probe.calibrate_probes", look)
    folder = suite.create_suite(tmp_path, ASKED, [spec(1), spec(2)])
    assert not met
    assert suite.list_suites(tmp_path) == [folder]


def test_a_log_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(suite.SuiteError, match="--log-root"):
        suite.create_suite(tmp_path / "file", ASKED, [])


def test_a_broken_suite_hides_no_other_from_the_list(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = suite.create_suite(folder.parent, ASKED, [spec(1)])
    (broken / "runs" / "01-probe-a-m" / "spec.json").write_text("{")
    warden_file.write_warden(folder, warden())
    follow.list_suites(folder.parent, everything=True, as_json=False)
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == [folder.name]
    assert f"{broken}/runs/01-probe-a-m/spec.json cannot be read" in said.err


def test_find_takes_part_of_a_name_and_refuses_what_fits_twice(folder: Path) -> None:
    root = folder.parent
    assert suite.find_suite(root, None) == folder
    assert suite.find_suite(root, folder.name[-4:]) == folder
    assert suite.find_suite(root, str(folder)) == folder
    with pytest.raises(suite.SuiteError, match="no suite 'zzz'"):
        suite.find_suite(root, "zzz")
    suite.create_suite(root, ASKED, [spec(1)])
    with pytest.raises(suite.SuiteError, match="fits 2 suites"):
        suite.find_suite(root, "tiny")
    with pytest.raises(suite.SuiteError, match="no suites yet"):
        suite.find_suite(root / "none", None)


def test_the_reader_follows_what_is_appended(folder: Path) -> None:
    warden_file.write_warden(folder, warden())
    reader = suite_reader.SuiteReader(folder)
    assert [r.state.status for r in reader.poll().runs] == ["queued", "queued"]
    write(folder, "01-probe-a-m", m.Attempt(number=1, pid=5), m.Hello(engine="probe", pid=5))
    state = reader.poll()
    assert (state.warden, state.runs[0].state.status) == ("running", "running")
    assert state.current is not None
    with (folder / "runs/01-probe-a-m/events.jsonl").open("ab") as file:
        line = p.encode(p.Entry(seq=2, wall=1.0, src="warden", msg=m.End(cause="killed")))
        file.write(line[:20])
        file.flush()
        assert reader.poll().runs[0].state.status == "running"  # half a line is no line yet
        file.write(line[20:])
    assert reader.poll().runs[0].state.cause == "killed"


def test_a_warden_that_is_gone_is_lost_and_one_that_ended_is_ended(folder: Path) -> None:
    warden_file.write_warden(folder, warden(start_ticks=1))  # the pid lives, but is another process
    assert suite_reader.SuiteReader(folder).poll().warden == "lost"
    warden_file.write_warden(folder, warden(start_ticks=1, state="ended"))
    assert suite_reader.SuiteReader(folder).poll().warden == "ended"
    warden_file.write_warden(folder, warden())
    assert suite_reader.SuiteReader(folder).poll().warden == "running"


def test_a_suite_without_a_warden_is_starting_then_lost(folder: Path) -> None:
    assert suite_reader.SuiteReader(folder).poll().warden == "starting"
    os.utime(folder / "plan.toml", (0, 0))
    assert suite_reader.SuiteReader(folder).poll().warden == "lost"


def test_commands_arrive_in_order_and_broken_lines_are_passed_over(folder: Path) -> None:
    control.send_command(folder, control.Command(do="skip", run="01-probe-a-m"))
    with (folder / "control.jsonl").open("ab") as file:
        file.write(b"{broken\n")
    control.send_command(folder, control.Command(do="stop"))
    with (folder / "control.jsonl").open("ab") as file:
        file.write(b'{"do":"pause"')  # not finished: for the next call
    commands, offset = control.read_commands(folder, 0)
    assert [c.do for c in commands] == ["skip", "stop"]
    with (folder / "control.jsonl").open("ab") as file:
        file.write(b"}\n")
    commands, _ = control.read_commands(folder, offset)
    assert [c.do for c in commands] == ["pause"]


def test_an_endless_line_does_not_keep_later_commands_waiting(folder: Path) -> None:
    control.send_command(folder, control.Command(do="pause"))
    with (folder / "control.jsonl").open("ab") as file:
        file.write(b"x" * 200_000 + b"\n")
    control.send_command(folder, control.Command(do="skip", run="01-probe-a-m"))
    found, offset = [], 0
    for _ in range(LOOKS):
        commands, offset = control.read_commands(folder, offset)
        found += [command.do for command in commands]
    assert found == ["pause", "skip"]
    assert list(control.read_removed_runs(folder)) == ["01-probe-a-m"]


def test_an_idle_machine_is_said_to_be_idle(tmp_path: Path, capsys) -> None:
    follow.list_suites(tmp_path, everything=False, as_json=False)
    said = capsys.readouterr()
    assert said.out == ""
    assert "no suite is at work" in said.err
    assert "--all" in said.err
    follow.list_suites(tmp_path, everything=False, as_json=True)
    assert capsys.readouterr() == ("", "")


def test_a_suite_whose_plan_does_not_fit_on_the_disk_is_none(tmp_path: Path) -> None:
    long = ASKED.model_copy(update={"goal": "a" * 4000, "background": "b" * 4000})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
        with pytest.raises(suite.SuiteError, match="cannot be written"):
            suite.create_suite(tmp_path, long, [spec(1)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert suite.list_suites(tmp_path) == []
