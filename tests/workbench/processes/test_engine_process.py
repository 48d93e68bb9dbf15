"""What an engine inherits, and which processes are counted as its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.protocol import Artifact, Failed, Phase, PhaseName, Progress, RunSpec, Step
from tests.fixtures.wardens import until
from workbench.processes import engine_process, tree
from workbench.processes.engine_process import ExitStatus
from workbench.processes.limits import Limits
from workbench.supervisor import exit_cause
from workbench.supervisor.exit_cause import ExitEvidence, decide_cause
from workbench.supervisor.watchdog import HangDetector, RateLimit


def spec(**fields: object) -> RunSpec:
    base = {"suite": "s", "run_id": "r", "engine": "e", "subset": "d", "model": "m"}
    return RunSpec.model_validate({**base, "cache_root": "/none", **fields})


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    child = subprocess.Popen(command, env={**os.environ, tree.TOKEN_NAME: "t-4711"})
    until(lambda: tree.processes_with_token("t-4711"), "the child's environment")
    yield child
    child.kill()
    child.wait()


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("PATH", True), ("HOME", True), ("LANG", True), ("LC_ALL", True), ("OMP_NUM_THREADS", True),
        ("CUDA_VISIBLE_DEVICES", True), ("HF_HOME", True), ("TOKENIZERS_PARALLELISM", True),
        ("WORKBENCH_CACHE", True), ("XDG_CACHE_HOME", True), ("VIRTUAL_ENV", True),
        ("HF_TOKEN", False), ("HUGGING_FACE_HUB_TOKEN", False), ("WANDB_API_KEY", False),
        ("AWS_SECRET_ACCESS_KEY", False), ("WORKBENCH_DB_PASSWORD", False), ("LD_PRELOAD", False),
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
    code = "import engines.protocol, sys; print(engines.protocol.PROTOCOL)"
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


def test_a_process_is_never_mistaken_for_another(sleeper: subprocess.Popen[bytes]) -> None:
    seen = tree.read_process(sleeper.pid)
    assert seen is not None
    wrong = seen._replace(start_ticks=seen.start_ticks - 1)
    assert not tree.send_signal(wrong, signal.SIGKILL)
    assert sleeper.poll() is None
    assert tree.send_signal(seen, signal.SIGKILL)
    assert sleeper.wait(10) == -signal.SIGKILL
    assert not tree.send_signal(seen, signal.SIGTERM), "a process that is gone is no error"
    assert tree.read_process(sleeper.pid) is None


def test_a_name_full_of_brackets_does_not_confuse_the_reading(tmp_path: Path) -> None:
    folder = tmp_path / "42"
    folder.mkdir()
    fields = ["S", "7", "42", "9", *["0"] * 15, "123456", "0"]
    (folder / "stat").write_text(f"42 (a) R 1 (b)) {' '.join(fields)}")
    assert tree.read_process(42, str(tmp_path)) == tree.Process(42, 123456, 7, 9, "S")


def test_the_token_finds_its_carriers_only(sleeper: subprocess.Popen[bytes]) -> None:
    assert tree.processes_with_token("t-4711") == {sleeper.pid}
    assert tree.processes_with_token("t-471") == set(), "a token is no prefix"


def test_children_of_all_threads_are_found() -> None:
    """Linux lists a child under the thread that forked it."""
    script = textwrap.dedent("""
        import subprocess, sys, threading, time
        def fork():
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            print("forked", flush=True)
            time.sleep(60)
        threading.Thread(target=fork).start()
    """)
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    parent.stdout.readline()
    found = tree.descendant_pids(parent.pid)
    assert len(found) == 2
    assert found == sorted(tree.subtree_pids(parent.pid, tree.list_processes()))
    os.killpg(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()


def test_a_fork_storm_does_not_outrun_the_killer() -> None:
    """A process that forks a successor in a new session and dies, as fast as it can."""
    storm = textwrap.dedent("""
        import os, time
        end = time.monotonic() + 20
        for _ in range(8):
            if os.fork() == 0:
                break
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            os.setsid()
            time.sleep(0.002)
    """)
    script = textwrap.dedent(f"""
        import os, signal, subprocess, sys, time
        from workbench.processes import tree
        tree.become_subreaper()
        token = "storm-" + str(os.getpid())
        child = subprocess.Popen(
            [sys.executable, "-c", {storm!r}], env={{**os.environ, tree.TOKEN_NAME: token}},
            start_new_session=True, stdout=subprocess.DEVNULL,
        )
        time.sleep(0.5)
        ticks = tree.read_start_ticks(child.pid)
        root = tree.Process(child.pid, ticks, os.getpid(), child.pid, "S")
        killed, survivors = tree.Tree(root, token, os.getpid()).kill(10.0)
        print(len(killed) > 0, survivors, tree.processes_with_token(token))
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "True [] set()\n", done.stderr


def test_killing_gives_up_on_what_cannot_be_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    immortal = tree.Process(4_000_000, 1, 1, 1, "D")
    monkeypatch.setattr(tree, "send_signal", lambda *_: False)
    began = time.monotonic()
    assert tree.kill_all(lambda: [immortal], 0.2) == ([], [4_000_000])
    assert time.monotonic() - began < 2


DONE = ExitStatus(code=0)
KILLED = ExitStatus(signal=signal.SIGKILL)
STOP = Failed(error="Stopped as asked.", hint="stopped")
USAGE = Failed(error="x", hint="usage")
BITSANDBYTES = "Error out of memory at line 449 in file /src/csrc/pythonInterface.cpp"
ABORT = "terminate called after throwing\n  what():  CUDA error: out of memory\nSearch for it"


@pytest.mark.parametrize(
    ("seen", "cause"),
    [
        (ExitEvidence(DONE, done=True), "completed"),
        (ExitEvidence(DONE, done=True, stop_cause="stopped"), "completed"),
        (ExitEvidence(DONE, done=True, artifact_problems=("gone",)), "failed"),
        (ExitEvidence(DONE, done=True, storage_error="full"), "storage-lost"),
        (ExitEvidence(DONE, done=True, protocol_error="99"), "protocol-error"),
        (ExitEvidence(DONE), "protocol-error"),
        (ExitEvidence(ExitStatus(code=3), done=True), "failed"),
        (ExitEvidence(ExitStatus(code=3)), "failed"),
        (ExitEvidence(ExitStatus(code=1), log_tail=BITSANDBYTES), "oom-cuda"),
        (
            ExitEvidence(ExitStatus(code=1), log_tail=f"{BITSANDBYTES}\nRuntimeWarning: x"),
            "oom-cuda",
        ),
        (ExitEvidence(ExitStatus(signal=signal.SIGABRT), log_tail=ABORT), "oom-cuda"),
        (
            ExitEvidence(ExitStatus(signal=signal.SIGABRT), log_tail="what(): std::bad_alloc"),
            "oom-host",
        ),
        (ExitEvidence(KILLED, log_tail=ABORT), "killed"),
        (ExitEvidence(DONE, done=True, log_tail=ABORT), "completed"),
        (ExitEvidence(ExitStatus(code=1), failed=USAGE, log_tail=ABORT), "failed"),
        (ExitEvidence(ExitStatus(), done=True), "unknown"),
        (ExitEvidence(KILLED), "killed"),
        (ExitEvidence(KILLED, oom_kills=1), "oom-host"),
        (ExitEvidence(KILLED, oom_kills=1, stop_cause="stopped"), "stopped"),
        (ExitEvidence(ExitStatus(signal=signal.SIGTERM), oom_kills=1), "killed"),
        (ExitEvidence(ExitStatus(signal=signal.SIGBUS)), "failed"),
        (ExitEvidence(ExitStatus(signal=40)), "killed"),
        (ExitEvidence(ExitStatus(code=143), failed=STOP, stop_cause="skipped"), "skipped"),
        (ExitEvidence(ExitStatus(code=143), failed=STOP), "stopped"),
        (ExitEvidence(KILLED, stop_cause="hung", stop_detail="no progress"), "hung"),
        (ExitEvidence(ExitStatus(code=1), failed=USAGE), "failed"),
    ],
)
def test_the_verdict(seen: ExitEvidence, cause: str) -> None:
    said, detail = decide_cause(seen)
    assert said == cause
    assert detail or cause in ("completed", "stopped", "skipped")


@given(
    code=st.none() | st.integers(0, 255),
    number=st.none() | st.integers(1, 64),
    done=st.booleans(),
    oom=st.integers(-1, 2),
    problem=st.sampled_from(["", "x"]),
)
def test_nothing_but_all_three_proofs_is_completed(
    code: int | None, number: int | None, done: bool, oom: int, problem: str
) -> None:
    seen = ExitEvidence(
        ExitStatus(code, number), done=done, oom_kills=oom,
        artifact_problems=(problem,) if problem else (),
    )  # fmt: skip
    assert (decide_cause(seen)[0] == "completed") == (code == 0 and done and not problem)


def safetensors(path: Path, header: bytes, data: bytes) -> Artifact:
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)
    return Artifact(path=path.name, sha256="0", size=path.stat().st_size)


def test_artifacts_are_verified_where_they_lie(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    whole = b'{"__metadata__":{"a":"b"},"w":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    good = safetensors(run / "a.safetensors", whole, b"xy")
    assert exit_cause.find_artifact_problems([good], run) == ()
    wrong_first = good.model_copy(update={"size": 1})
    assert exit_cause.find_artifact_problems([wrong_first, good], run) == (), (
        "the last word on a path counts"
    )
    assert "bytes instead of 1" in exit_cause.find_artifact_problems([wrong_first], run)[0]
    short = safetensors(run / "b.safetensors", whole, b"x")
    assert "do not end" in exit_cause.find_artifact_problems([short], run)[0]
    broken = safetensors(run / "c.safetensors", b'{"w":7}', b"x")
    assert "cannot be read" in exit_cause.find_artifact_problems([broken], run)[0]
    (run / "d.safetensors").write_bytes(b"\xff" * 8)
    huge = Artifact(path="d.safetensors", sha256="0", size=8)
    assert "claims" in exit_cause.find_artifact_problems([huge], run)[0]


@pytest.mark.parametrize(
    "path", ["../out", "/etc/passwd", "link", "fifo", "none", "a\0b", "x" * 300]
)
def test_an_artifact_cannot_lead_anywhere_else(tmp_path: Path, path: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "out").write_bytes(b"1")
    (run / "link").symlink_to("/etc/hostname")
    os.mkfifo(run / "fifo")
    assert (
        len(exit_cause.find_artifact_problems([Artifact(path=path, sha256="0", size=1)], run)) == 1
    )


def test_oom_kills_are_read_from_machine_and_cgroups(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "vmstat").write_text("nr_free_pages 5\noom_kill 3\n")
    (proc / "self/cgroup").write_text("4:memory:/job\n2:cpu:/x\n0::/user/me\n")
    (groups / "user/me").mkdir(parents=True)
    (groups / "user/me/memory.events").write_text("oom 9\noom_kill 20\noom_group_kill 0\n")
    (groups / "memory/job").mkdir(parents=True)
    (groups / "memory/job/memory.oom_control").write_text("under_oom 0\noom_kill 100\n")
    assert exit_cause.count_oom_kills(proc, groups) == 123
    assert exit_cause.count_oom_kills(tmp_path / "none", tmp_path / "none") == 0


def test_silence_is_measured_by_progress_and_by_phase() -> None:
    silence = HangDetector(Limits(), 0.0)
    assert not silence.newly_stalled(599)
    silence.record_message(Phase(name="train"), 600)
    for number in range(1, 4):
        silence.record_message(
            Step(step=number, count=1, samples=1, seconds=9, step_seconds=(9.0,), loss=1, lr=1),
            600 + number,
        )
    assert silence.idle_seconds(603) == 0
    assert not silence.newly_stalled(603 + 179), "20 times 9 s"
    assert silence.newly_stalled(603 + 181)
    assert not silence.newly_stalled(603 + 182), "noted once"
    assert not silence.is_hung(603 + 3599)
    assert silence.is_hung(603 + 3600)
    silence.record_message(Progress(done=1, total=9), 5000)
    silence.record_message(Progress(done=1, total=9), 6000)
    assert silence.idle_seconds(6000) == 1000, "the same progress twice is none"


@pytest.mark.parametrize(("phase", "share"), [("import", 0.5), ("compile", 3), ("eval", 1)])
def test_every_phase_has_its_budget(phase: PhaseName, share: float) -> None:
    silence = HangDetector(Limits(), 0.0)
    silence.record_message(Phase(name=phase), 100)
    assert not silence.newly_stalled(100 + 600 * share - 1)
    assert silence.newly_stalled(100 + 600 * share)
    assert not silence.is_hung(100 + 3600 * share - 1)
    assert silence.is_hung(100 + 3600 * share)


def test_the_rate_limit_lets_a_burst_pass_and_then_its_rate() -> None:
    limit = RateLimit(10)
    assert sum(limit.allows(100.0) for _ in range(50)) == 10
    assert sum(limit.allows(100.5) for _ in range(50)) == 5


def test_the_grace_is_configurable_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_GRACE", "0.5")
    assert Limits.from_environment().grace_seconds == 0.5
    for wrong in ("-1", "nan", "1e9", "soon"):
        monkeypatch.setenv("WORKBENCH_GRACE", wrong)
        with pytest.raises(ValueError, match="WORKBENCH_GRACE"):
            Limits.from_environment()


def test_the_documented_limits_are_the_real_ones() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs/warden.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+)(?: (KiB|MiB))? \|$", text, re.MULTILINE)
    unit = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20}
    documented = {name: float(value) * unit[size] for name, value, size in rows}
    assert documented == {name: float(value) for name, value in asdict(Limits()).items()}
