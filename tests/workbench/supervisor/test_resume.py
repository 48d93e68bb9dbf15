"""A suite goes on after any ending; a run that ran out of memory goes on smaller."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from engines import catalog, messages
from engines.protocol import RunSpec
from results.records import store
from results.records.store import last_attempts
from results.tables import run_cells
from tests.fixtures.wardens import Sandbox, entries, until
from workbench.processes import tree
from workbench.reporting import suite_view
from workbench.suites import control, oom_retry, state, suite, suite_reader, warden_file
from workbench.suites.control import Command
from workbench.suites.journal import Journal
from workbench.supervisor import recovery, resume
from workbench.supervisor.event_log import write_end
from workbench.supervisor.run_records import write_record


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Sandbox(tmp_path) as sandbox:
        sandbox.environment |= {"WORKBENCH_GRACE": "1", "WORKBENCH_LOG_ROOT": str(sandbox.logs)}
        yield sandbox


def causes(folder: Path) -> list[str]:
    return [r.state.cause for r in suite_reader.SuiteReader(folder).poll().runs]


def attempts(folder: Path) -> list[int]:
    return [r.state.attempt for r in suite_reader.SuiteReader(folder).poll().runs]


def resumed(sandbox: Sandbox, folder: Path) -> list[str]:
    """The causes after one more warden with `--resume`."""
    sandbox.start(folder, resume=True)
    sandbox.finish(folder)
    return causes(folder)


def test_completed_runs_are_kept_and_all_others_start_again(sandbox: Sandbox) -> None:
    folder, _ = sandbox.run("ok", "second-time", "kill9", "ok")
    before = entries(folder, 0)
    assert causes(folder) == ["completed", "failed", "killed", "completed"]
    assert resumed(sandbox, folder) == ["completed", "completed", "killed", "completed"]
    assert entries(folder, 0) == before
    assert attempts(folder) == [1, 2, 2, 1]
    records = list(store.read_records(sandbox.logs / "results.jsonl"))
    keys = [(r.identity.run_id[:2], r.identity.attempt) for r in records]
    assert keys == [("01", 1), ("02", 1), ("03", 1), ("04", 1), ("02", 2), ("03", 2)]
    assert [r.exit.cause for r in last_attempts(records)] == causes(folder)


def test_a_run_that_waits_to_be_tried_again_has_not_failed_yet(sandbox: Sandbox) -> None:
    """A report made while a resumed suite is at work."""
    folder, _ = sandbox.run("ok", "kill9", "ok")
    ended = suite_view.build_view(folder)
    assert [r.exit.cause for r in ended.records] == ["completed", "killed", "completed"]
    before = warden_file.read_warden(folder)
    assert before is not None
    with subprocess.Popen(["/bin/sleep", "60"]) as idle:
        stat = Path(f"/proc/{idle.pid}/stat").read_text().rpartition(")")[2].split()
        changes = {"pid": idle.pid, "start_ticks": int(stat[19]), "state": "running"}
        now = {"started_wall": time.time()}
        warden_file.write_warden(folder, before.model_copy(update=changes | now))
        resumed = suite_view.build_view(folder)
        idle.kill()
    warden_file.write_warden(folder, before)
    assert [r.exit.cause for r in resumed.records] == ["completed", "completed"]
    assert [run[:2] for run in resumed.pending] == ["02"]
    assert resumed.started_wall == ended.started_wall, "the suite's start, not the resume's"


def test_a_stopped_suite_goes_on_and_forgets_the_stop(sandbox: Sandbox) -> None:
    folder = sandbox.suite("polite", "ok", "ok")
    sandbox.start(folder)
    sandbox.until_step(folder)
    control.send_command(folder, Command(do="stop"))
    sandbox.finish(folder)
    assert causes(folder) == ["stopped"] * 3
    sandbox.start(folder, resume=True)
    reader = suite_reader.SuiteReader(folder)
    until(lambda: (c := reader.poll().current) and c.state.step, "the first run's second start")
    control.send_command(folder, Command(do="skip"))
    sandbox.finish(folder)
    assert causes(folder) == ["skipped", "completed", "completed"]
    assert resume.unfinished_runs(folder) == []
    assert attempts(folder) == [2, 1, 1], "a run that never started has its first attempt now"


def test_a_run_that_was_stopped_before_it_began_and_lost_later_has_both_records(
    sandbox: Sandbox,
) -> None:
    folder = sandbox.suite("ok")
    [(run, spec)] = suite.read_runs(folder)
    records = sandbox.logs / "results.jsonl"
    write_record(records, run, spec, write_end(run, "stopped", "before its turn"))
    with Journal.open(run / "events.jsonl") as journal:
        journal.write("warden", messages.Attempt(number=1, pid=1))
    dead = warden_file.WardenFile(
        pid=os.getpid(), start_ticks=0, host="here", place=tree.pid_namespace(),
        token="of-nobody", state="running",
    )  # fmt: skip
    warden_file.write_warden(folder, dead)
    assert recovery.recover_dead_suite(folder) == [spec.run_id]
    assert [r.exit.cause for r in store.read_records(records)] == ["stopped", "supervisor-lost"]


def test_what_a_person_took_out_by_name_stays_out(sandbox: Sandbox) -> None:
    folder = sandbox.suite("polite", "ok", "ok", "exit3")
    ids = [spec.run_id for _, spec in suite.read_runs(folder)]
    sandbox.start(folder)
    sandbox.until_step(folder)
    control.send_command(folder, Command(do="cancel", run=ids[1]))
    control.send_command(folder, Command(do="skip", run=ids[2]))
    os.kill(sandbox.warden_pid(folder), signal.SIGKILL)  # before it could write anything about them
    until(lambda: not sandbox.warden_pid(folder), "the warden's death")
    sandbox.wardens.pop().wait()
    recovery.recover_dead_suite(folder)
    assert [v.spec.run_id for v in resume.unfinished_runs(folder)] == [ids[0], ids[3]]
    sandbox.start(folder, resume=True)
    reader = suite_reader.SuiteReader(folder)
    until(lambda: (c := reader.poll().current) and c.state.step, "the first run's second start")
    control.send_command(folder, Command(do="stop"))
    sandbox.finish(folder)
    assert causes(folder) == ["stopped", "stopped", "skipped", "stopped"]


def test_a_run_that_lacked_another_is_tried_again_with_it(sandbox: Sandbox) -> None:
    folder = sandbox.suite("second-time", "ok", "exit3", "ok", needs={1: [0], 3: [2]})
    sandbox.start(folder)
    sandbox.finish(folder)
    assert causes(folder) == ["failed", "skipped", "failed", "skipped"]
    assert resumed(sandbox, folder) == ["completed", "completed", "failed", "skipped"]
    ends = [e.msg for e in entries(folder, 3) if isinstance(e.msg, messages.End)]
    assert len(ends) == 1, "still for the same reason, so nothing is added"
    assert ends[0].need.startswith("03-")


def test_a_run_that_is_not_reached_again_keeps_its_own_ending(sandbox: Sandbox) -> None:
    folder, _ = sandbox.run("polite-later", "exit3")
    assert causes(folder) == ["failed", "failed"]
    sandbox.start(folder, resume=True)
    reader = suite_reader.SuiteReader(folder)
    until(lambda: (c := reader.poll().current) and c.state.step, "the first run's second start")
    control.send_command(folder, Command(do="stop"))
    sandbox.finish(folder)
    assert causes(folder) == ["stopped", "failed"]
    keys = [(r.identity.run_id[:2], r.identity.attempt)
            for r in store.read_records(sandbox.logs / "results.jsonl")]  # fmt: skip
    assert keys == [("01", 1), ("02", 1), ("01", 2)]


def command(sandbox: Sandbox, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", *words],
        env=sandbox.environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


PROBE = ["run", "-e", "probe", "-d", "none", "-m", "none", "--set", "rounds=1", "--set"]


def test_the_command_goes_on_after_kill_9_of_the_warden(sandbox: Sandbox) -> None:
    words = [*PROBE, "delay_seconds=0.05", "--set", "steps=40", "--seed", "1", "--seed", "2"]
    name = command(sandbox, *words, "--detach").stdout.strip()
    folder = sandbox.logs / name
    sandbox.until_step(folder)
    pid = suite_reader.SuiteReader(folder).poll().runs[0].state.pid
    assert pid
    os.kill(pid, signal.SIGSTOP)  # it does not end before its warden does
    refused = command(sandbox, "resume", name)
    assert refused.returncode == 2
    assert f"warden {sandbox.warden_pid(folder)} on" in refused.stderr
    os.kill(sandbox.warden_pid(folder), signal.SIGKILL)
    done = command(sandbox, "resume", "--headless")
    assert done.returncode == 0, done.stderr
    assert f"{name}: 2 runs are left; first 01-" in done.stderr
    assert "which ended as supervisor-lost" in done.stderr
    assert causes(folder) == ["completed", "completed"]
    assert attempts(folder) == [2, 1]
    nothing = command(sandbox, "resume", name)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing is left to do" in nothing.stderr
    every = command(sandbox, "resume")
    assert every.returncode == 2
    assert "every suite is at work or has nothing left" in every.stderr


def test_two_resumes_at_once_are_one(sandbox: Sandbox) -> None:
    name = command(sandbox, *PROBE, "delay_seconds=0.05", "--set", "steps=99", "--detach").stdout
    folder = sandbox.logs / name.strip()
    sandbox.until_step(folder)
    os.kill(sandbox.warden_pid(folder), signal.SIGKILL)
    until(lambda: not sandbox.warden_pid(folder), "the warden's death")
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "workbench", "resume", name.strip(), "--headless"],
            env=sandbox.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=180)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 2], said
    assert attempts(folder) == [2]
    assert causes(folder) == ["completed"]


# The OOM ladder


def oom_suite(sandbox: Sandbox, fits: int, **more: object) -> Path:
    spec = {key: more.pop(key) for key in ("engine", "oom_retries") if key in more}
    params = {"fits": fits, "batch": 64, **more}
    return sandbox.suite("oom", spec={"engine": "captioning", **spec}, **params)


def test_each_rung_is_an_attempt_and_the_effective_batch_stays(sandbox: Sandbox) -> None:
    folder = oom_suite(sandbox, 16, engine="retrieval", grad_cache_chunk=0)
    sandbox.start(folder)
    sandbox.finish(folder)
    assert causes(folder) == ["completed"]
    ooms = [e.msg for e in entries(folder) if isinstance(e.msg, messages.Oom)]
    assert [(o.before, o.after, o.step) for o in ooms] == [(64, 32, 1), (32, 16, 1)]
    assert ooms[-1].params == {"grad_cache_chunk": 16}, "the objective stays what it was"
    assert all(e.src == "warden" for e in entries(folder) if isinstance(e.msg, messages.Oom))
    records = list(store.read_records(sandbox.logs / "results.jsonl"))
    assert [(r.identity.attempt, r.exit.cause) for r in records] == [
        (1, "oom-cuda"), (2, "oom-cuda"), (3, "completed"),
    ]  # fmt: skip
    assert "next attempt computes 32 at once instead of 64" in records[0].exit.detail
    last = records[-1]
    assert last.facts["batch"] == "64 (4 × 16)"
    assert last.counters["ooms"] == 2
    assert "OOM ×2, batch 64 (4 × 16)" in run_cells.flags(last)
    foreign = last.model_copy(update={"facts": {"batch": "\x1b[31m64 (2 × 32)"}})
    assert "OOM ×2" in run_cells.flags(foreign)
    assert last.identity.params["batch"] == 64, "what was asked names the run"


@pytest.mark.parametrize(("retries", "tried"), [(0, 1), (2, 3)])
def test_the_ladder_ends_where_it_was_told_to(sandbox: Sandbox, retries: int, tried: int) -> None:
    folder = oom_suite(sandbox, 0, engine="retrieval", grad_cache_chunk=0, oom_retries=retries)
    sandbox.start(folder)
    sandbox.finish(folder)
    assert causes(folder) == ["oom-cuda"]
    assert attempts(folder) == [tried]
    if retries:
        detail = suite_reader.SuiteReader(folder).poll().runs[0].state.end
        assert detail is not None
        assert detail.detail.endswith("given up after 2 smaller attempts")


def test_a_resumed_suite_remembers_the_rung(sandbox: Sandbox) -> None:
    folder = oom_suite(sandbox, 16, engine="retrieval", grad_cache_chunk=0, oom_retries=1)
    sandbox.start(folder)
    sandbox.finish(folder)
    assert (causes(folder), attempts(folder)) == (["oom-cuda"], [2])
    sandbox.start(folder, resume=True)
    sandbox.finish(folder)
    plans = [e.msg for e in entries(folder) if isinstance(e.msg, messages.Oom)]
    assert attempts(folder) == [3]
    assert len(plans) == 1, "no further rung, and the third attempt began on the first one"


SPEC = RunSpec(
    suite="s", run_id="r", engine="captioning", subset="n", model="n", cache_root="/x",
    params={"batch": 9, "gradient_accumulation_steps": 2},
)  # fmt: skip


def after(batch: int, gradient_accumulation_steps: int, *ooms: messages.Oom) -> dict[str, object]:
    """The next rung's settings by the general rule."""
    found = catalog.halve_batch(
        {"batch": batch, "gradient_accumulation_steps": gradient_accumulation_steps}
    )
    return found.params if found else {}


@pytest.mark.parametrize(
    ("batch", "gradient_accumulation_steps", "wanted"),
    [
        (64, 1, (32, 2)), (2, 4, (1, 8)), (9, 2, (3, 6)), (7, 1, (1, 7)), (12, 1, (6, 2)),
        (6, 5, (3, 10)), (1, 8, None),
    ],
)  # fmt: skip
def test_halving_keeps_the_effective_batch(
    batch: int, gradient_accumulation_steps: int, wanted: tuple[int, int] | None
) -> None:
    found = after(batch, gradient_accumulation_steps)
    if wanted is None:
        assert found == {}
        return
    assert (found["batch"], found["gradient_accumulation_steps"]) == wanted
    assert wanted[0] * wanted[1] == batch * gradient_accumulation_steps


TRAIN, EVALUATE = ("compile", "warmup", "train"), ("eval", "encode", "search", "generate")
LOWERED = {
    "retrieval": dict.fromkeys(TRAIN, "grad_cache_chunk")
    | dict.fromkeys(("eval", "encode"), "eval_batch_size"),
    "captioning": dict.fromkeys(TRAIN, "batch")
    | dict.fromkeys(("eval", "generate"), "eval_batch_size")
    | {"cache": "vision_batch"},
    "vqa": dict.fromkeys(TRAIN, "batch") | dict.fromkeys(("eval", "generate"), "eval_batch_size"),
    "probe": {},
}


@pytest.mark.parametrize("phase", get_args(messages.PhaseName))
@pytest.mark.parametrize("engine", catalog.names())
def test_out_of_memory_lowers_what_the_phase_computes_with(engine: str, phase: str) -> None:
    """Loading, building and saving have no such setting: a smaller attempt would fail alike."""
    params = catalog.load(engine).Params().model_dump()
    params |= {"batch": 16} if "batch" in params else {}
    rung, knob = catalog.reduce_memory(engine, params, phase), LOWERED[engine].get(phase)
    if knob is None:
        assert rung is None
        return
    assert rung is not None
    before = params[knob] or params["batch"]
    changed = {knob: before // 2}
    if knob == "batch":
        changed["gradient_accumulation_steps"] = params["gradient_accumulation_steps"] * 2
    assert (rung.before, rung.after, rung.params) == (before, before // 2, changed)
    catalog.load(engine).Params.model_validate({**params, **rung.params})
    assert catalog.reduce_memory(engine, {**params, knob: 1}, phase) is None


def test_a_resumed_training_keeps_its_batch_where_only_evaluation_failed() -> None:
    params = catalog.load("captioning").Params().model_dump()
    spec = SPEC.model_copy(update={"params": params})
    phases = (state.PhaseSpan("train", 0.0, 5.0), state.PhaseSpan("generate", 5.0, None))
    rung = oom_retry.next_attempt(spec, state.RunState(phases=phases))
    assert rung is not None
    after_rung = {**params, **rung.params}
    assert after_rung["eval_batch_size"] == params["eval_batch_size"] // 2
    assert (after_rung["batch"], after_rung["gradient_accumulation_steps"]) == (16, 2)
    plan = messages.Plan(steps=1, samples=1, effective_batch=32, micro_batch=16)
    assert oom_retry.describe_batch(state.RunState(plan=plan, ooms=(rung,))) == "32"


def test_an_unknown_engine_has_no_rung() -> None:
    spec = SPEC.model_copy(update={"engine": "nobody"})
    assert oom_retry.next_attempt(spec, state.RunState()) is None
