"""What an engine inherits: environment, GPUs, log; and how its end is read."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from engines.protocol import RunSpec
from workbench.processes import engine_process, tree
from workbench.processes.engine_process import ExitStatus
from workbench.supervisor.exit_cause import ExitEvidence, decide_cause
from workbench.tui.view_models.suite_feed import clean_log


def spec(**fields: object) -> RunSpec:
    base = {"suite": "s", "run_id": "r", "engine": "e", "subset": "d", "model": "m"}
    return RunSpec.model_validate({**base, "cache_root": "/none", **fields})


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("PATH", True), ("HOME", True), ("LANG", True), ("LC_ALL", True), ("OMP_NUM_THREADS", True),
        ("CUDA_VISIBLE_DEVICES", True), ("HF_HOME", True), ("TOKENIZERS_PARALLELISM", True),
        ("WORKBENCH_CACHE", True), ("XDG_CACHE_HOME", True), ("VIRTUAL_ENV", True),
        ("HF_TOKEN", False), ("HUGGING_FACE_HUB_TOKEN", False), ("WANDB_API_KEY", False),
        ("AWS_SECRET_ACCESS_KEY", False), ("WORKBENCH_DB_PASSWORD", False), ("LD_PRELOAD", False),
        ("ATEN_CPU_CAPABILITY", True), ("ONEDNN_MAX_CPU_ISA", True), ("DNNL_VERBOSE", True),
        ("SLURM_JOB_ID", True), ("SLURM_ARRAY_TASK_ID", True), ("SLURM_CPU_BIND", False),
        ("SLURM_NTASKS", False), ("SLURM_JWT", False),
        ("GIT_ASKPASS", False), ("http_proxy", False), ("PATHOLOGY", False),
    ],
)  # fmt: skip
def test_the_environment_is_an_allow_list(name: str, passes: bool) -> None:
    made = engine_process.engine_environment({name: "value"}, spec(), "token", 1)
    assert (made.get(name) == "value") is passes


def test_an_engine_knows_who_it_is_and_which_gpus_it_may_use() -> None:
    made = engine_process.engine_environment(
        {"CUDA_VISIBLE_DEVICES": "7"}, spec(devices=(0, 2)), "token", 3
    )
    assert made["CUDA_VISIBLE_DEVICES"] == "0,2"
    assert made["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert (made["WORKBENCH_TOKEN"], made["WORKBENCH_ATTEMPT"]) == ("token", "3")
    kept = engine_process.engine_environment({"CUDA_VISIBLE_DEVICES": "7"}, spec(), "token", 1)
    assert kept["CUDA_VISIBLE_DEVICES"] == "7"
    hidden = engine_process.engine_environment(
        {"CUDA_VISIBLE_DEVICES": "7"}, spec(cpu=True), "token", 1
    )
    assert hidden["CUDA_VISIBLE_DEVICES"] == ""


def test_torch_in_an_engine_on_the_cpu_finds_no_gpu() -> None:
    """torch reads the variable before it asks the driver; only a private function says so."""
    made = engine_process.engine_environment(os.environ, spec(cpu=True), "token", 1)
    code = "from torch import cuda; print(cuda._parse_visible_devices(), cuda.is_available())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=made, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[] False\n"


def test_specs_from_before_the_flag_still_open() -> None:
    old = spec().model_dump(mode="json")
    del old["cpu"]
    assert RunSpec.model_validate(old) == spec()


def test_the_current_folder_cannot_hide_a_module(tmp_path: Path) -> None:
    (tmp_path / "engines.py").write_text("raise SystemExit('hidden')")
    made = engine_process.engine_environment(os.environ, spec(), "token", 1)
    code = "import engines.messages, sys; print(engines.messages.PROTOCOL)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=made, capture_output=True, check=False
    )
    assert done.stdout == b"1\n", done.stderr


def test_a_stolen_status_is_unknown_and_not_zero(tmp_path: Path) -> None:
    """With SIGCHLD ignored the kernel throws statuses away, and Popen says 0."""
    script = textwrap.dedent("""
        import os, signal, sys, time
        from pathlib import Path
        from workbench.processes import engine_process as process
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        life, _ = os.pipe()
        command = [sys.executable, "-c", "raise SystemExit(7)"]
        engine = process.start_engine(command, Path(sys.argv[1]), dict(os.environ), life, 65536)
        deadline = time.monotonic() + 20
        while (status := engine.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        print(status)
    """)
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "ExitStatus(code=None, signal=None)\n", done.stderr
    assert decide_cause(ExitEvidence(status=ExitStatus(), done=True))[0] == "unknown"


def test_an_engine_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    life, other = os.pipe()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(engine_process.EngineStartError, match="cannot be started"):
        engine_process.start_engine(["/no/such/program"], tmp_path, {}, life, 65_536)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(life)
    os.close(other)


@pytest.mark.parametrize("call", ["pipe", "pidfd_open"])
def test_an_engine_without_a_descriptor_left_is_an_error_and_no_orphan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    before = tree.numeric_entries("/proc/self/fd"), tree.child_pids(os.getpid())
    monkeypatch.setattr(engine_process.os, call, refuse)
    with pytest.raises(engine_process.EngineStartError, match="Too many open files"):
        engine_process.start_engine(["sleep", "60"], tmp_path, {"PATH": os.defpath}, 0, 65_536)
    assert (tree.numeric_entries("/proc/self/fd"), tree.child_pids(os.getpid())) == before


def test_attempts_are_parted_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "engine.log").write_text("RuntimeError: of the first\n")
    engine_process.mark_attempt(tmp_path, 2)
    data = (tmp_path / "engine.log").read_bytes()
    first, mark = data.decode().splitlines()
    assert first == "RuntimeError: of the first"
    assert mark.startswith("==== attempt 2, ")
    assert clean_log(data) == (mark,), "the screen shows the last attempt"


def test_a_log_on_a_failing_disk_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "engine.log").write_bytes(b"A" * 5000)
    monkeypatch.setattr(engine_process.os, "pread", fail)
    assert engine_process.trim_log(tmp_path, limit=4_000, keep=1000) == 0


def test_a_trimmed_log_keeps_its_ends_and_its_writers(tmp_path: Path) -> None:
    writer = engine_process.open_log(tmp_path)
    os.write(writer, b"A" * 3000 + b"B" * 3000)
    assert engine_process.trim_log(tmp_path, limit=10_000, keep=1000) == 0
    assert engine_process.trim_log(tmp_path, limit=5_000, keep=1000) == 4000
    os.write(writer, b"C" * 10)
    os.close(writer)
    log = (tmp_path / "engine.log").read_bytes()
    assert log == b"A" * 1000 + b"\n[... 4000 bytes cut out here ...]\n" + b"B" * 1000 + b"C" * 10
    assert engine_process.tail_log(tmp_path / "engine.log", 12) == "BBCCCCCCCCCC"
    assert engine_process.tail_log(tmp_path / "none") == ""
