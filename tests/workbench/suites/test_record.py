"""From the journal to the record: no number without a source, no gap without a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import messages as m
from engines import protocol as p
from engines.gpu_readings import EngineGpu, Gpu
from results.records import store
from workbench.exit_codes import ExitCode
from workbench.headless import follow
from workbench.reporting import run_listing
from workbench.suites import record
from workbench.suites.state import RunView, SuiteState, is_full_window, reduce_entries

SPEC = p.RunSpec(
    suite="s", run_id="01-retrieval-a-m", engine="retrieval", subset="a", model="m",
    params={"epochs": 1}, cache_root="c", plan_hash="abc",
)  # fmt: skip
GIB = 1 << 30


def entries(*messages: m.Message) -> list[p.Entry]:
    return [
        p.Entry(seq=i, wall=50.0 + i, src="engine", msg=line) for i, line in enumerate(messages)
    ]


START = (
    m.Attempt(number=1, pid=5, environment={"cpu": "x86", "versions": {"psutil": "7"}}),
    m.Hello(t=1, engine="retrieval", pid=5, device="cpu", threads=2, versions={"torch": "2.15"}),
    m.Phase(t=2, name="train"),
    m.Plan(t=2, steps=4, samples=100, effective_batch=8, micro_batch=8, subset_fingerprint="f0"),
    m.Step(t=3, step=4, count=4, samples=32, seconds=2.0, loss=1.5, lr=1e-3, metrics={"r@1": 0.5}),
)
TIMING = m.Timing(
    time_to_first_step=2.5, epoch_wall_seconds=2.0, epoch_steps=4, step_median=0.5,
    step_median_low=0.4, step_median_high=0.6, interval_method="block bootstrap",
    samples_per_second=16.0, samples_per_second_median=16.1, reasons={"step_p95": "too few steps"},
)  # fmt: skip


def test_a_completed_run() -> None:
    run = reduce_entries(entries(
        *START, TIMING,
        m.Memory(t=3, phase="train", rss_peak=3 * GIB, reason="no CUDA device"),
        m.Sample(t=3, rss_main_peak=2 * GIB, rss_tree=4 * GIB, gpu_reason="NVML: not found"),
        m.Metric(t=4, name="recall@1", value=0.25, split="val", n=9, low=0.1, high=0.4),
        m.Done(t=5), m.End(t=6, cause="completed", exit_code=0, counters={"oversize": 1}),
    ))  # fmt: skip
    made = record.build_record(SPEC, run, "s/runs/01")
    assert (made.exit.cause, made.exit.code) == ("completed", 0)
    assert made.identity.subset_fingerprint == "f0"
    assert made.environment.versions == {"psutil": "7", "torch": "2.15"}
    assert made.timing.end_to_end_seconds.value == 6
    assert made.timing.step_median.low == 0.4
    assert made.timing.step_p95.reason == "too few steps"
    assert made.memory.rss_main_peak.value == 3 * GIB  # the larger of the two VmHWM
    assert made.memory.rss_tree_peak.value == 4 * GIB
    assert made.memory.vram_device_peak.reason == "NVML: not found"
    assert made.memory.vram_allocated_peak.reason == "no CUDA device"
    assert made.train == {"loss": 1.5, "lr": 1e-3, "r@1": 0.5, "batch": 8.0}
    assert made.metrics[0].value == 0.25
    assert made.counters == {"oversize": 1.0}
    assert made == type(made).model_validate_json(made.model_dump_json())


def test_the_mean_of_the_epoch_stands_beside_the_last_window() -> None:
    timing = TIMING.model_copy(
        update={"epoch_loss": 2.25, "epoch_loss_steps": 4, "epoch_stall_seconds": 0.5,
                "data_stall_share": 0.25}
    )  # fmt: skip
    last = START[-1].model_copy(update={"epoch": 1.0})
    done = (m.Done(t=5), m.End(t=6, cause="completed", exit_code=0))
    made = record.build_record(
        SPEC, reduce_entries(entries(*START[:-1], last, timing, *done)), "s/runs/01"
    )
    assert (made.train["loss"], made.train["epoch_loss"], made.train["epoch"]) == (1.5, 2.25, 1.0)
    assert made.timing.epoch_loss_steps == 4
    assert made.timing.epoch_stall_seconds.value == 0.5
    assert made.timing.data_stall_share.value == 0.25


def test_only_costing_runs_without_a_timed_step_have_measured_nothing() -> None:
    completed = reduce_entries(entries(*START[:4], m.End(t=6, cause="completed", exit_code=0)))

    def status(*specs: p.RunSpec) -> ExitCode:
        runs = tuple(RunView(spec, spec.run_id, completed) for spec in specs)
        return follow.exit_status(SuiteState("s", warden="ended", runs=runs))

    probe = SPEC.model_copy(update={"task": "probe", "probe": p.Probe()})
    assert status(SPEC) is ExitCode.COMPLETED
    assert status(probe) is ExitCode.NOTHING_MEASURED
    assert status(probe, SPEC) is ExitCode.COMPLETED


def test_a_short_last_batch_is_not_what_training_ended_with() -> None:
    """8 of 64 samples: r@1 has chance 1/8 there, and the loss is lower by log 8."""
    short = m.Step(
        t=4, step=5, count=1, samples=3, seconds=1.0, loss=0.1, lr=1e-4, metrics={"r@1": 1.0}
    )
    run = reduce_entries(entries(*START, short, m.End(t=6, cause="completed", exit_code=0)))
    made = record.build_record(SPEC, run, "f")
    assert made.train == {"loss": 1.5, "lr": 1e-4, "r@1": 0.5, "batch": 8.0}
    assert run.curves["loss"].points == ((4, 1.5),)
    assert run.curves["lr"].points == ((4, 1e-3), (5, 1e-4))
    assert run.last == short

    alone = reduce_entries(entries(*START[:-1], short, m.End(t=6, cause="completed", exit_code=0)))
    train = record.build_record(SPEC, alone, "f").train
    assert (train["r@1"], train["batch"]) == (1.0, 3.0), "all there is, with its own chance"
    assert alone.curves["loss"].points == ((5, 0.1),)


@pytest.mark.parametrize(("count", "samples", "full"), [(16, 4091, True), (2, 384, False)])
def test_a_merged_window_counts_where_its_short_batch_weighs_little(count, samples, full) -> None:
    plan = m.Plan(steps=320, samples=4091, effective_batch=256, micro_batch=256)
    step = m.Step(step=47, count=count, samples=samples, seconds=1.0, loss=0.5, lr=1e-3)
    assert is_full_window(plan, step) is full


def test_epochs_and_timed_steps_are_those_that_were_done() -> None:
    step = m.Step(t=4, step=236, count=200, samples=1600, seconds=9.0, loss=1.0, lr=0, epoch=7.375)
    timing = TIMING.model_copy(update={"epoch_steps": 32, "timed_steps": 204})
    made = record.build_record(
        SPEC, reduce_entries(entries(*START, step, timing, m.End(cause="stopped"))), "f"
    )
    assert (made.epochs, made.timing.timed_steps, made.timing.epoch_steps) == (7.375, 204, 32)
    untold = record.build_record(
        SPEC, reduce_entries(entries(*START, step, TIMING, m.End(cause="stopped"))), "f"
    )
    assert untold.timing.timed_steps == 204, "as the journal counts them"
    before = record.build_record(
        SPEC, reduce_entries(entries(*START[:-1], m.End(cause="failed"))), "f"
    )
    assert before.epochs == 0


def test_a_line_of_the_list_has_seed_and_score(tmp_path: Path) -> None:
    metrics = [
        m.Metric(name=name, value=value, split=split, n=9)
        for name, value, split in (
            ("loss", 0.1, "train"), ("recall@1[chance]", 0.01, "oven_val"),
            ("recall@1", 0.25, "oven_val"), ("recall@5", 0.5, "oven_val"),
        )
    ]  # fmt: skip
    made = record.build_record(
        SPEC, reduce_entries(entries(*START, *metrics, m.End(cause="completed"))), "f"
    )
    none = record.build_record(SPEC, reduce_entries(entries(*START, m.End(cause="failed"))), "f")
    other = none.model_copy(update={"identity": none.identity.model_copy(update={"run_id": "2"})})
    for one in (made, other):
        store.append_record(tmp_path / "results.jsonl", one)
    runs, _ = run_listing.read_runs(tmp_path, tmp_path / "cache")
    first, second = map(run_listing.describe_run, runs)
    assert "seed 42" in first
    assert first.endswith("recall@5 0.5000 on oven_val")
    assert second.endswith("max RSS")


def test_a_killed_run_has_reasons_instead_of_numbers() -> None:
    run = reduce_entries(entries(*START, m.End(t=4, cause="killed", signal=9)))
    made = record.build_record(SPEC, run, "s/runs/01")
    assert (made.exit.cause, made.exit.signal, made.exit.phase, made.exit.step) == (
        "killed", 9, "train", 4,
    )  # fmt: skip
    assert made.timing.epoch_wall_seconds.value is None
    assert "ended before" in made.timing.epoch_wall_seconds.reason
    assert made.memory.rss_tree_peak.reason


def test_a_run_that_never_started() -> None:
    run = reduce_entries(entries(m.End(cause="skipped", detail="skipped by a person")))
    made = record.build_record(SPEC, run, "s/runs/01")
    assert made.exit.detail == "skipped by a person"
    assert made.timing.end_to_end_seconds.reason == "the engine was not started"
    unmade = entries(m.Attempt(number=1, pid=0), m.End(cause="failed", detail="no such program"))
    stored = record.build_record(SPEC, reduce_entries(unmade), "s/runs/01")
    assert stored.timing.end_to_end_seconds.reason == "the engine was not started", "and not 0 s"


@pytest.mark.parametrize(("total", "median", "flag"), [(100, 104, False), (100, 106, True)])
def test_rates_that_disagree_flag_the_run(total: float, median: float, *, flag: bool) -> None:
    timing = m.Timing(samples_per_second=total, samples_per_second_median=median)
    run = reduce_entries(entries(*START, timing, m.End(cause="completed")))
    assert ("rates_disagree" in record.build_record(SPEC, run, "f").counters) is flag


def fitted(spec: p.RunSpec, cause: str = "completed", allocated: int | None = None):
    """The record's forecast beside a run of 3 GiB max RSS."""
    run = reduce_entries(entries(
        *START,
        m.Memory(t=3, phase="train", rss_peak=3 * GIB, vram_allocated_peak=allocated,
                 reason="" if allocated else "no CUDA device"),
        m.End(t=6, cause=cause, exit_code=0),
    ))  # fmt: skip
    return record.build_record(spec, run, "f").fit


NAMED = m.Hello(t=1, engine="retrieval", pid=5, device="A", gpus=[{"uuid": "a"}, {"uuid": "b"}])
CARDS = {"gpus": [{"index": 0, "uuid": "GPU-a", "name": "A"}, {"index": 1, "uuid": "GPU-b"}]}


REASONS = ("used", "process")


def memory_of(*messages: m.Message, hello: m.Hello = NAMED):
    attempt = m.Attempt(number=1, pid=5, environment=CARDS)
    return record.build_record(SPEC, reduce_entries(entries(attempt, hello, *messages)), "f")


def test_vram_is_summed_over_gpus_and_a_missing_process_figure_keeps_its_reason() -> None:
    gpus = [Gpu(index=i, used=u, reasons={"process": "pid namespace"}) for i, u in ((0, 5), (1, 7))]
    memory = memory_of(m.Sample(gpus=tuple(gpus)), m.End(cause="completed")).memory
    assert memory.vram_device_peak.value == 12
    assert memory.vram_process_peak.reason == "pid namespace"
    half = [Gpu(index=0, used=5, process=4), Gpu(index=1, reasons=dict.fromkeys(REASONS, "lost"))]
    memory = memory_of(m.Sample(gpus=tuple(half)), m.End(cause="completed")).memory
    assert (memory.vram_device_peak.value, memory.vram_device_peak.reason) == (None, "lost")
    assert (memory.vram_process_peak.value, memory.vram_process_peak.reason) == (None, "lost")


def test_no_sum_over_gpus_that_nobody_says_the_run_took() -> None:
    """As journals from before engines named their GPUs have it."""
    sample = m.Sample(t=3, gpus=[Gpu(index=i, used=70, process=0) for i in range(2)])
    before = memory_of(sample, hello=NAMED.model_copy(update={"gpus": ()})).memory
    assert before.vram_device_peak.value is None
    assert before.vram_device_peak.reason == "the engine did not say which of 2 GPUs it took"
    assert memory_of(sample).memory.vram_device_peak.value == 140
    assert memory_of(sample).memory.vram_device_peak.method == "NVML, sum of the peaks of 2 GPUs"


def test_no_memory_by_nvml_where_torch_had_some_is_no_peak() -> None:
    samples = [m.Sample(t=3, gpus=[Gpu(index=i, used=9, process=7 * i) for i in range(2)])]
    known = memory_of(*samples).memory.vram_process_peak
    assert (known.value, known.method) == (7, "NVML, sum of the peaks of 2 GPUs")
    torch = m.Memory(t=4, phase="train", vram_allocated_peak=5, vram_reserved_peak=6)
    unknown = memory_of(*samples, torch).memory.vram_process_peak
    assert (unknown.value, "torch has some" in unknown.reason) == (None, True)


def test_the_record_names_the_gpus_that_the_run_took() -> None:
    said = NAMED.model_copy(
        update={"gpus": (EngineGpu(uuid="b", name="B", memory_bytes=7, capability=(8, 0)),
                         EngineGpu(uuid="c", name="C"))}
    )  # fmt: skip
    first, second = memory_of(hello=said).environment.run_gpus
    assert (first.index, first.uuid, first.name, first.memory_bytes) == (1, "GPU-b", "B", 7)
    assert (second.uuid, second.name) == ("c", "C"), "NVML does not list it"
    assert memory_of(hello=NAMED.model_copy(update={"gpus": ()})).environment.run_gpus == ()


def test_a_memory_forecast_stands_beside_what_counts_the_same() -> None:
    assert fitted(SPEC) is None
    sizes = {"tensors": {"train": GIB, "predict": 2 * GIB}, "total": {"train": 6 * GIB,
             "predict": 9 * GIB}}  # fmt: skip
    gpu = SPEC.model_copy(update={"fit": {"gpu": "T4", **sizes}})
    found = fitted(gpu, allocated=4 * GIB)
    assert (found.measured.value, found.measured.method) == (4 * GIB, "torch")
    assert found.error == -0.5  # 2 of 4 GiB: tensors against tensors
    unseen = fitted(gpu)
    assert (unseen.measured.reason, unseen.error) == ("no CUDA device", None)
    host = fitted(SPEC.model_copy(update={"fit": {"gpu": "", **sizes}}))
    assert (host.measured.method, host.error) == ("VmHWM", 2.0)  # 9 of 3 GiB: the whole process
    elsewhere = SPEC.model_copy(update={"fit": {"gpu": "", **sizes}})
    moved = (START[0], START[1].model_copy(update={"device": "cuda:0"}), *START[2:])
    run = reduce_entries(entries(*moved, m.End(t=6, cause="completed", exit_code=0)))
    assert "ran on cuda:0" in record.build_record(elsewhere, run, "f").fit.measured.reason


def test_part_of_a_run_is_compared_with_no_more_than_it_did() -> None:
    sizes = {"gpu": "", "tensors": {"train": GIB, "predict": 2 * GIB},
             "total": {"train": 6 * GIB, "predict": 9 * GIB}}  # fmt: skip
    stopped = fitted(SPEC.model_copy(update={"fit": sizes}), cause="stopped")
    assert (stopped.measured.value, stopped.error) == (3 * GIB, None)
    again = reduce_entries(entries(
        m.Attempt(number=2, pid=6), *START[1:],
        m.Memory(t=3, phase="train", rss_peak=3 * GIB, reason="no CUDA device"),
        m.End(t=6, cause="completed", exit_code=0),
    ))  # fmt: skip
    resumed = record.build_record(SPEC.model_copy(update={"fit": sizes}), again, "f").fit
    assert (resumed.measured.value, resumed.error) == (3 * GIB, None)
    probed = fitted(SPEC.model_copy(update={"fit": sizes, "probe": p.Probe(steps=20)}))
    assert (probed.phase, probed.error) == ("train", 1.0)


def test_max_rss_of_a_run_shorter_than_the_sampling_is_its_own_peak() -> None:
    """A reading from before the interpreter is loaded (a few hundred KiB) is no peak."""
    early = m.Sample(t=0.1, rss_main=500_000, rss_main_peak=500_000)
    short = reduce_entries(entries(START[0], early, START[1], m.Done(t=2, rss_peak=30 << 20),
                         m.End(t=3, cause="completed", exit_code=0)))  # fmt: skip
    assert record.build_record(SPEC, short, "s").memory.rss_main_peak.value == 30 << 20
    failed = reduce_entries(entries(START[0], early, m.Failed(t=2, error="no", rss_peak=20 << 20),
                          m.End(t=3, cause="failed", exit_code=1)))  # fmt: skip
    assert record.build_record(SPEC, failed, "s").memory.rss_main_peak.value == 20 << 20
    killed = reduce_entries(entries(START[0], early, m.End(t=3, cause="killed", signal=9)))
    reading = record.build_record(SPEC, killed, "s").memory.rss_main_peak
    assert reading.value is None
    assert reading.reason == "the run ended before the first sample of the loaded engine"


def test_what_was_sampled_on_one_of_two_nodes_is_no_figure_of_the_run() -> None:
    attempt = m.Attempt(number=1, pid=5, environment={"nodes": ["gpu07", "gpu08"]})
    gpu = Gpu(index=0, used=GIB, process=GIB, energy=5.0)
    sample = m.Sample(t=2, rss_main=1, rss_main_peak=7, rss_tree=9, gpus=(gpu,))
    later = sample.model_copy(update={"t": 3, "gpus": (gpu.model_copy(update={"energy": 9.0}),)})
    run = reduce_entries(entries(attempt, *START[1:], sample, later, m.Done(t=4)))
    built = record.build_record(SPEC, run, "s/runs/01")
    assert built.environment.nodes == ("gpu07", "gpu08")
    missing = (built.memory.rss_tree_peak, built.memory.vram_device_peak, built.energy.run)
    assert {(r.value, r.reason) for r in missing} == {(None, "sampled on one of its 2 nodes only")}
    assert built.memory.rss_main_peak.value == 7
