"""The doctor: every finding against a machine made for it, and the command as a person runs it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.fixtures.nvml.state import GIB, MIB, build_library, make_state
from tests.fixtures.terminals import ROOT
from tests.hardware import fakes
from tests.hardware.machines import CATALOG, Machine
from tests.workbench.tui import sample_suites
from workbench.doctor import gpus, machine, software, storage, terminal
from workbench.processes import host_memory, lock_folder


def standings(findings) -> dict[str, str]:
    return {finding.name: finding.standing for finding in findings}


# --- the machine ---------------------------------------------------------------------------------


def test_limits_have_a_remedy() -> None:
    assert machine.descriptors_finding(64, 64).standing == "problem"
    assert machine.descriptors_finding(512, 4096).standing == "note"
    assert machine.descriptors_finding(-1, -1).standing == "ok"
    assert "ulimit -n 4096" in machine.descriptors_finding(512, 100_000).remedy
    assert machine.memory_finding(host_memory.CgroupLimits(memory_bytes=GIB)).standing == "problem"
    assert machine.cores_finding(host_memory.CgroupLimits(cores=0.5)).standing == "note"


def test_small_shared_memory_is_about_ranks(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * MIB))
    found = machine.shared_memory_finding(tmp_path, 2)
    assert (found.standing, found.text) == (
        "problem",
        f"64 MiB free in {tmp_path}; NCCL may fail with `unhandled system error` on 2 GPUs",
    )
    assert "nproc_per_node = 1" in found.remedy
    assert "worker" not in found.text + found.remedy
    assert machine.shared_memory_finding(tmp_path, 1).standing == "ok"
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * GIB))
    assert machine.shared_memory_finding(tmp_path, 8).standing == "ok"
    monkeypatch.undo()
    assert machine.shared_memory_finding(Path("/none/at/all"), 2).standing == "problem"
    assert machine.shared_memory_finding(Path("/none/at/all"), 0).standing == "ok"


def test_clocks() -> None:
    assert machine.clock_finding("tsc", True).standing == "ok"
    assert machine.clock_finding("hpet", True).standing == "note"
    assert machine.clock_finding("tsc", False).standing == "note"
    assert machine.clock_finding("", None).standing == "ok"
    assert machine.is_synchronized() in (True, False, None)


# --- software ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pydantic>=2.9", ""),
        ("pydantic>=99,<100", "pydantic is"),
        ("pydantic<1", "pydantic is"),
        ("no-such-package-at-all>=1", "no-such-package-at-all is missing"),
        ("numpy", ""),
    ],
)
def test_requirements(line: str, said: str) -> None:
    finding = software.packages_finding([line])
    assert finding.standing == ("problem" if said else "ok")
    assert finding.text.startswith(said)
    assert not said or f"`pip install {shlex.quote(line)}`" in finding.remedy


def test_our_requirements_are_met_here() -> None:
    assert software.packages_finding(software.read_requirements()).standing == "ok"


def test_torch_is_told_without_importing_it(tmp_path: Path) -> None:
    folder = tmp_path / "torch"
    folder.mkdir()
    (folder / "version.py").write_text("__version__ = '2.15.0+cpu'\ncuda: Optional[str] = None\n")
    assert "2.15.0+cpu, built for CPUs only" in software.torch_finding(folder).text
    (folder / "version.py").write_text("__version__ = '9.9'\ncuda: Optional[str] = '13.2'\n")
    assert software.torch_finding(folder).text == "9.9, built for CUDA 13.2"


# --- folders -------------------------------------------------------------------------------------

MOUNTS = """\
21 1 8:1 / / rw - ext4 /dev/sda1 rw
30 21 0:40 / /net/logs rw,relatime shared:1 - nfs4 server:/x rw
31 21 0:41 / /my\\040disk rw - fuse.sshfs host:/ rw
33 21 0:42 / /자료/그림 rw - cifs //host/x rw
32 30 8:2 / /net/logs/local rw - xfs /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/net/logs/suite", "nfs4"), ("/net/logs2", "ext4"), ("/my disk/a", "fuse.sshfs"),
     ("/자료/그림/a", "cifs"),      ("/net/logs/local/x", "xfs"), ("/", "ext4")],
)  # fmt: skip
def test_the_file_system_below_a_folder(tmp_path: Path, folder: str, kind: str) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert lock_folder.file_system_type(Path(folder), tmp_path / "mounts") == kind


def test_a_network_file_system_is_said(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text(f"30 21 0:40 / {tmp_path} rw - nfs4 server:/x rw\n")
    found = list(storage.network_findings("cache", tmp_path / "not yet", tmp_path / "mounts"))
    assert [f.standing for f in found] == ["note"]
    assert "nfs4" in found[0].text


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert [f.standing for f in storage.surroundings_findings(tmp_path / "file")] == ["problem"]
    assert [f.standing for f in storage.surroundings_findings(Path("/proc/self"))] == ["problem"]
    assert list(storage.surroundings_findings(tmp_path)) == []
    assert list(storage.access_findings("log root", tmp_path)) == []
    open_ = tmp_path / "open"
    open_.mkdir()
    open_.chmod(0o777)
    (found,) = storage.access_findings("log root", open_)
    assert (found.standing, found.remedy) == ("problem", f"run `chmod 700 {open_}`")


def test_dead_wardens_torn_and_newer_records(tmp_path: Path) -> None:
    sample_suites.make_suite(tmp_path, [("a", "m")], state="running", pid=2**22 - 1)
    sample_suites.write_records(tmp_path, 3)
    found = list(storage.suite_findings(tmp_path))
    assert standings(found) == {"suites": "ok", "records": "ok"}
    assert "lost their warden" in found[0].text
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"schema":1,"torn')
    assert [f.standing for f in storage.record_findings(tmp_path / "results.jsonl")] == ["note"]
    (tmp_path / "results.jsonl").write_text('{"schema":9999}\n')
    assert [f.standing for f in storage.record_findings(tmp_path / "results.jsonl")] == ["problem"]


# --- terminal ------------------------------------------------------------------------------------


def test_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    streams = {sys.__stdout__.fileno(): (0, 0), sys.stderr.fileno(): (120, 36)}
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size(streams[fd]))
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "20")
    dumb, small = ({"TERM": "dumb"}, {"TERM": "xterm-256color"})
    assert standings(terminal.terminal_findings(dumb))["terminal"] == "note"
    assert standings(terminal.terminal_findings(small))["terminal"] == "note"
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "36")
    assert standings(terminal.terminal_findings(small))["terminal"] == "ok"
    inside = {"TMUX": "/tmp/x", "TERM": "xterm-256color"}
    assert standings(terminal.terminal_findings(inside))["tmux"] == "note"
    assert (
        standings(terminal.terminal_findings({"TMUX": "x", "TERM": "tmux-256color"}))["tmux"]
        == "ok"
    )
    monkeypatch.delenv("COLUMNS")
    monkeypatch.delenv("LINES")
    assert standings(terminal.terminal_findings(small))["terminal"] == "ok", "stdout is a pipe"
    assert terminal.encoding_finding("ascii", "utf-8").standing == "note"
    assert terminal.describe_colours({"NO_COLOR": "1"}) == "no colours (NO_COLOR)"


# --- GPUs, by the stub ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_library(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def driver(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    monkeypatch.setenv("NVML_STUB_STATE", str(tmp_path / "state"))
    return make_state(tmp_path / "state", 2)


def test_a_stand_in_is_marked_and_gpus_are_listed(driver) -> None:
    driver.devices[1].hold()
    found = list(gpus.driver_findings(gpus.start_sampler()))
    assert {"NVML": "note", "GPU 0": "note", "GPU 1": "ok"}.items() <= standings(found).items()
    assert "stand-in" in found[0].text
    assert "1 processes compute on it" in found[1].text


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(18, "reload the nvidia modules"), (9, "modprobe nvidia"), (999, "start it again"),
     (4, "group that owns")],
)  # fmt: skip
def test_a_driver_that_refuses_is_a_problem_with_a_remedy(driver, code: int, remedy: str) -> None:
    driver.rc_init = code
    (found,) = gpus.driver_findings(gpus.start_sampler())
    assert found.standing == "problem"
    assert remedy in found.remedy


def test_a_lost_gpu_does_not_hide_the_other(driver) -> None:
    driver.devices[0].rc = 15
    driver.devices[1].hold()
    found = {f.name: f for f in gpus.driver_findings(gpus.start_sampler())}
    assert (found["GPU 0"].standing, found["GPU 1"].standing) == ("problem", "ok")
    assert "lost" in found["GPU 0"].text
    assert "reset the GPU" in found["GPU 0"].remedy


def test_a_value_that_nobody_knows_has_its_reason(driver) -> None:
    driver.devices[0].rc_utilisation = 3
    found = {f.name: f for f in gpus.driver_findings(gpus.start_sampler())}
    assert "utilisation: n/a (Not Supported)" in found["GPU 0"].text


def test_a_driver_that_never_answers_is_told_in_time(driver) -> None:
    driver.devices[0].sleep_us = 30_000_000
    began = time.monotonic()
    (found,) = gpus.driver_findings(gpus.start_sampler(), seconds=1.0)
    assert found.standing == "problem"
    assert "not answered" in found.text
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("one", CATALOG, ids=lambda one: one.key)
def test_a_gpu_that_torch_cannot_use_is_a_problem(monkeypatch, one: Machine) -> None:
    facts = fakes.facts_of(monkeypatch, one)
    found = list(gpus.torch_problems(facts, one.torch.cuda)) if facts else []
    wrong = {"p100": "GPU 0", "v100": "GPU 0", "old-driver": "torch"}
    assert [finding.name for finding in found] == [wrong[key] for key in wrong if key == one.key]
    for finding in found:
        assert finding.standing == "problem"
        assert "whl/cu126" in finding.remedy
    assert not facts or [f.name for f in gpus.torch_problems(facts, "")] == ["torch"]


def test_no_library_is_only_a_note(tmp_path: Path) -> None:
    assert gpus.absence_finding("libnvidia-ml.so.1 is not on this machine").standing == "note"


# --- the command ---------------------------------------------------------------------------------


def doctor(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", "doctor", *words], cwd=tmp_path, text=True,
        capture_output=True, timeout=180, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "WORKBENCH_CACHE": str(tmp_path / "cache"),
             "WORKBENCH_LOCKS": str(tmp_path), **environment},
    )  # fmt: skip


def test_json_has_every_finding_and_the_exit_code_says_whether_all_is_well(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(row) == {"name", "standing", "text", "remedy"} for row in rows)
    assert all(row["remedy"] or row["standing"] == "ok" for row in rows)
    problems = [row for row in rows if row["standing"] == "problem"]
    assert done.returncode == bool(problems)
    names = {row["name"] for row in rows}
    wanted = {"python", "packages", "torch", "cores", "memory", "descriptors", "shared memory",
              "clock", "log root", "cache", "temporary files", "suites", "subsets", "terminal",
              "characters"}  # fmt: skip
    assert wanted <= names


def test_a_problem_is_exit_code_1(tmp_path: Path) -> None:
    done = doctor(tmp_path, "--log-root", "/proc/nowhere")
    assert done.returncode == 1
    assert "problem  log root" in done.stdout
    assert "→" in done.stdout


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom workbench import doctor\n"
        "list(doctor.examine_machine(Path('/tmp/none'), Path('/tmp/none')))\n"
        "print({m.partition('.')[0] for m in sys.modules} & {'torch','numpy','pyarrow','PIL',"
        "'pandas','pynvml','textual'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "set()"
