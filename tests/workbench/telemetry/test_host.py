"""Figures of /proc against psutil and against what was really allocated; facts of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.fixtures.wardens import until
from workbench.processes import host_memory
from workbench.telemetry import environment
from workbench.telemetry.proc import MAX_PROCESSES, TreeMeter

MIB = 1 << 20


@pytest.fixture
def hog():
    """A child that holds 50 MiB, burns one core, and has peaked at 90 MiB."""
    code = (
        "import time\nb = b'x' * (90 << 20)\ndel b\nb = b'x' * (50 << 20)\nprint(flush=True)\n"
        "end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    child.stdout.readline()
    yield child
    child.kill()
    child.wait()
    child.stdout.close()


def test_memory_and_cpu_agree_with_psutil(hog) -> None:
    meter = TreeMeter(hog.pid)
    meter.read()
    cpu = psutil.Process(hog.pid)
    before, began = sum(cpu.cpu_times()[:2]), time.monotonic()
    time.sleep(0.5)
    reading = meter.read()
    spent = 100 * (sum(cpu.cpu_times()[:2]) - before) / (time.monotonic() - began)
    assert reading.rss_main == pytest.approx(cpu.memory_info().rss, abs=2 * MIB)
    assert reading.rss_tree == reading.rss_main
    assert reading.cpu_percent == pytest.approx(spent, abs=12)
    assert reading.cpu_percent > 10
    assert reading.processes == 1
    peak = meter.peak_main()
    assert peak is not None
    assert 90 * MIB < peak < 130 * MIB, "the kernel's exact peak, not the present size"
    pss = meter.pss()
    assert pss is not None
    assert 50 * MIB < pss <= reading.rss_main + MIB
    meter.close()


def test_an_old_process_that_joins_does_not_bring_its_past(hog) -> None:
    """A second of CPU from before it was watched would show as some 10,000 % of a core."""
    time.sleep(1.0)
    meter = TreeMeter(os.getpid())
    meter.read()
    meter.watch([os.getpid(), hog.pid])
    time.sleep(0.06)
    reading = meter.read()
    assert reading.cpu_percent is not None
    assert reading.cpu_percent < 100 * (os.cpu_count() or 1) + 150
    meter.close()


def test_looks_close_to_each_other_give_no_cpu_figure(hog, monkeypatch) -> None:
    """One tick of 10 ms within 0.2 ms would be 5,000 % of a core; it counts in the next figure."""
    meter, now, used = TreeMeter(hog.pid), [100.0], [0]
    monkeypatch.setattr(time, "clock_gettime", lambda _: now[0])
    monkeypatch.setattr("workbench.telemetry.proc._OpenProcess.ticks", lambda _: (used[0], 1.0))
    found = []
    for at, ticks in ((100.0, 500), (101.0, 600), (101.0002, 601), (102.0, 650)):
        now[0], used[0] = at, ticks
        found.append(meter.read().cpu_percent)
    assert found == [None, pytest.approx(100), None, pytest.approx(50)]
    meter.close()


def test_a_tree_is_the_sum_of_its_processes(hog) -> None:
    meter = TreeMeter(os.getpid())
    meter.watch([os.getpid(), hog.pid])
    reading = meter.read()
    assert reading.processes == 2
    assert reading.rss_tree > reading.rss_main + 50 * MIB
    meter.watch([os.getpid()])
    assert meter.read().rss_tree < reading.rss_tree
    meter.close()


def test_a_process_that_is_gone_is_null_and_not_zero(hog) -> None:
    meter = TreeMeter(hog.pid)
    hog.kill()
    until(lambda: meter.read().rss_main is None, "a zombie without memory")
    hog.wait()
    reading = meter.read()
    assert (reading.rss_main, reading.rss_tree, reading.processes) == (None, None, 0)
    assert meter.peak_main() is None
    assert meter.pss() is None


def test_no_descriptor_is_left_and_their_number_is_bounded() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    meter = TreeMeter(os.getpid())
    meter.watch([os.getpid()] * 3 + [4_000_000])
    assert meter.pids == [os.getpid()]
    meter.watch(range(1, 10_000))
    assert len(meter.pids) <= MAX_PROCESSES
    meter.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_facts_of_this_machine() -> None:
    facts = environment.collect_environment((), {}, "no driver here")
    assert facts.gpu_reason == "no driver here"
    assert facts.nvml_stub is False
    assert facts.ram_bytes == host_memory.read_memory().total
    assert facts.cores == len(os.sched_getaffinity(0))
    assert facts.python == sys.version.split()[0]
    assert facts.cpu
    assert "torch" not in facts.versions, "the engine says that one"


@pytest.mark.parametrize(("maker", "product", "variables", "said"), [
    ("Amazon EC2", "g5.xlarge", {}, "Amazon EC2 g5.xlarge"),
    ("Google", "Google Compute Engine", {}, "Google Compute Engine"),
    ("Google", "Google Compute Engine", {"COLAB_RELEASE_TAG": "r1"}, "Google Colab"),
    ("ASUS", "System Product Name", {}, ""),
])  # fmt: skip
def test_rented_machines_say_what_they_are(
    tmp_path: Path, maker: str, product: str, variables: dict[str, str], said: str
) -> None:
    (tmp_path / "sys_vendor").write_text(f"{maker}\n")
    (tmp_path / "product_name").write_text(f"{product}\n")
    assert environment.read_instance(variables, tmp_path) == said
    assert environment.read_instance({}, tmp_path / "none") == ""


def test_git_state_of_clean_dirty_and_no_checkout(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    assert environment.read_git_state(tmp_path) == ("", None)
    git("init", "-q")
    assert environment.read_git_state(tmp_path) == ("", None), "no commit yet"
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one")
    assert environment.read_git_state(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "untracked").write_text("1")
    assert environment.read_git_state(tmp_path)[1] is False
    (tmp_path / "file").write_text("2")
    assert environment.read_git_state(tmp_path)[1] is True


def test_a_repository_cannot_start_programs_through_us(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    (tmp_path / "file").write_text("1")
    for command in (
        ["add", "file"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one"],
        ["config", "core.fsmonitor", str(trap)],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    environment.read_git_state(tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_the_processor_is_named_everywhere(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: A Fine CPU @ 3 GHz\n")
    assert environment.read_cpu_name(info) == "A Fine CPU @ 3 GHz"
    assert environment.read_cpu_name(tmp_path / "none") == os.uname().machine
