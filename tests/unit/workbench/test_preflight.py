"""What a suite needs of its surroundings is tried before anything of it is written."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from engines.protocol import End, Entry
from results import store
from tests.fixtures.wardens import House, until
from workbench import paths, preflight, run_records, state, suite


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("WORKBENCH_LOCKS", raising=False)
    return tmp_path


def run_probe(here: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", "run", "-e", "probe", "-d", "none", "-m", "none",
         "--headless", "--set", "steps=3", *words],
        env={"PATH": "/usr/bin:/bin", "HOME": str(here), "WORKBENCH_CACHE": str(here / "cache"),
             **variables},
        cwd=here, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def refused(error: int) -> object:
    def call(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    return call


def test_nothing_is_made_by_looking(places: Path) -> None:
    assert preflight.check_surroundings(places / "logs") == []
    assert list(places.iterdir()) == []


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    places: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", refused(error))
    problems = preflight.check_surroundings(places / "logs")
    assert len(problems) == 3  # log root, cache, device locks
    assert all(os.strerror(error) in problem for problem in problems)
    assert "--log-root" in problems[0]


def test_a_kernel_without_pidfd_is_named(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pidfd_open", refused(errno.ENOSYS))
    (problem,) = preflight.check_surroundings(places / "logs")
    assert "pidfd_open" in problem
    assert "Linux 5.3" in problem


def test_an_interpreter_that_this_user_may_not_start_is_named(
    monkeypatch: pytest.MonkeyPatch, places: Path
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "/nowhere/python: this user" in preflight.check_surroundings(places / "logs")[0]


@pytest.mark.parametrize("kind", ["link", "dangling", "fifo", "folder"])
def test_records_that_cannot_be_appended_refuse_the_suite(places: Path, kind: str) -> None:
    records = places / "bench_logs" / "results.jsonl"
    records.parent.mkdir()
    if kind == "fifo":
        os.mkfifo(records)
    elif kind == "folder":
        records.mkdir()
    else:
        records.symlink_to(places / "elsewhere")
        (places / "elsewhere").write_text("") if kind == "link" else None
    done = run_probe(places)
    assert done.returncode == 2, done.stderr
    assert "results.jsonl: records cannot be appended" in done.stderr
    assert [p.name for p in records.parent.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"WORKBENCH_GRACE": "abc"}, "WORKBENCH_GRACE is 'abc'; give seconds"),
        ({"WORKBENCH_CACHE": "/dev/null/cache"}, "/dev/null/cache: caches cannot be written"),
        ({"WORKBENCH_LOCKS": "/proc/locks"}, "/proc/locks: devices cannot be locked there"),
        ({"WORKBENCH_LOG_ROOT": "/proc/logs"}, "/proc/logs: suites cannot be written there"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_sentence(
    places: Path, variables: dict[str, str], sentence: str
) -> None:
    done = run_probe(places, **variables)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (places / "bench_logs").exists()


def test_locks_are_found_by_every_session_of_a_user(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(places / "run"))
    over_ssh = paths.lock_root()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert paths.lock_root() == over_ssh
    assert not over_ssh.is_relative_to(places / "run")


def test_a_runtime_folder_of_another_user_is_no_obstacle(places: Path) -> None:
    assert run_probe(places, XDG_RUNTIME_DIR="/proc/1/nowhere").returncode == 0


def test_the_warden_survives_when_the_locks_go(house: House) -> None:
    locks = house.root / "locks"
    house.environment["WORKBENCH_LOCKS"] = str(locks)
    folder = house.suite("polite")
    house.start(folder)
    house.until_step(folder)
    shutil.rmtree(locks)
    until(lambda: "No such file" in house.log(folder), "an error of a beat")
    house.until_step(folder, 1 + suite.Reader(folder).poll().current.state.step)
    suite.send(folder, suite.Command(do="stop"))
    assert house.finish(folder).warden == "ended"
    assert house.log(folder).count("No such file") == 1  # said once, not at every beat


def test_a_record_that_cannot_be_appended_is_kept_in_its_run(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = house.suite("ok")
    monkeypatch.setattr(run_records.store, "append", refused(errno.EROFS))
    run, spec = suite.runs(folder)[0]
    end = Entry(seq=0, wall=1.0, src="warden", msg=End(cause="stopped"))
    with pytest.raises(OSError, match="Read-only"):
        run_records.write_record(folder, run, spec, state.fold([end]))
    assert (run / "summary.json").is_file()
    assert list(store.read(folder.parent / "results.jsonl")) == []


def test_a_warden_file_that_cannot_be_read_is_no_ended_suite(house: House) -> None:
    folder = house.suite("ok")
    (folder / "warden.json").symlink_to("warden.json")
    with pytest.raises(suite.SuiteError, match="whether it is at work is not known"):
        suite.read_warden(folder)
    with pytest.raises(suite.SuiteError):
        suite.Reader(folder).poll()


def test_a_deleted_warden_file_of_a_suite_at_work_is_no_lost_suite(house: House) -> None:
    folder = house.suite("ok")
    os.utime(folder / "plan.toml", (1, 1))
    assert suite.Reader(folder).poll().warden == "lost"
    with (folder / "warden.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert suite.Reader(folder).poll().warden == "running"
