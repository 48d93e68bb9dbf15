"""Suite folders as a warden would have left them, with numbers of the size that users reported."""

from __future__ import annotations

import math
import os
import platform
import random
import socket
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from engines import gpu_readings, messages, protocol
from engines.protocol import Entry, RunSpec
from results.records import schema, store
from results.records.schema import Reading
from workbench.planning import expand, plan
from workbench.suites import suite, warden_file
from workbench.suites.state import RunView, SuiteState, WardenState, reduce_entries

GIB = 1024**3


@dataclass
class Journal:
    """Writes one events.jsonl."""

    path: Path
    wall: float
    seq: int = 0

    def put(self, msg: messages.Message) -> None:
        src = (
            "warden"
            if isinstance(msg, messages.Sample | messages.Attempt | messages.End)
            else "engine"
        )
        entry = Entry(seq=self.seq, wall=self.wall + msg.t, src=src, msg=msg)
        self.seq += 1
        with self.path.open("ab") as file:
            file.write(protocol.encode(entry))


def make_suite(
    log_root: Path,
    cells: list[tuple[str, str]],
    *,
    name: str = "weekly-m2kr",
    state: WardenState = "ended",
    pid: int | None = None,
    stamp: str | None = None,
    detail: str = "",
) -> Path:
    """A suite folder with specs and a warden file; journals are written by the caller."""
    asked = plan.SuitePlan(
        name=name,
        engines=("retrieval",),
        subsets=tuple(dict.fromkeys(s for s, _ in cells)),
        models=tuple(dict.fromkeys(m for _, m in cells)),
    )
    specs = [
        RunSpec(
            suite="",
            run_id=f"{number:02d}-retrieval-{subset}-{model}",
            engine="retrieval",
            subset=subset,
            model=model,
            params={"epochs": 1, "batch_size": 64, "learning_rate": 2e-5},
            cache_root="cache",
        )
        for number, (subset, model) in enumerate(cells, 1)
    ]
    folder = suite.create_suite(log_root, asked, specs)
    if stamp:
        folder = folder.rename(log_root / f"{stamp}-{name}-1a2b")
        made = time.mktime(time.strptime(stamp, "%Y%m%d-%H%M%S"))
        plan_text = (folder / "plan.toml").read_text().partition("\n")[2]
        created = datetime.fromtimestamp(made, UTC).isoformat()  # suites are listed in this order
        (folder / "plan.toml").write_text(f"# created {created}\n{plan_text}")
        for run, spec in suite.read_runs(folder):
            text = spec.model_copy(update={"suite": folder.name}).model_dump_json()
            (run / "spec.json").write_text(text)
    write_warden(folder, state, pid=pid, detail=detail)
    return folder


def make_search(log_root: Path, trials: int) -> Path:
    """A search that has just begun: no trial yet."""
    asked = plan.parse(
        {"name": "lr", "subsets": "emoji_train", "models": "clip-nano",
         "search": {"metric": "recall@1", "trials": trials,
                    "ranges": {"lr": {"low": 1e-5, "high": 1e-2, "log": True}}}}
    )  # fmt: skip
    folder = suite.create_suite(log_root, asked, expand.expand(asked, log_root))
    write_warden(folder, "running", detail="the searcher chooses the next trial")
    return folder


def search_state(*causes: messages.Cause, trials: int = 20) -> SuiteState:
    """A search of which some trials have ended, each with this cause."""
    runs = []
    for number, cause in enumerate(causes, 1):
        chosen = {"lr": 0.0003 / number, "layers": [3, 7]}
        spec = protocol.RunSpec(
            suite="s", run_id=f"t{number}", engine="retrieval", subset="emoji_train", model="m",
            cache_root="c", trial=protocol.Trial(number=number, settings=chosen),
        )  # fmt: skip
        end = protocol.Entry(seq=0, wall=1.0, src="warden", msg=messages.End(cause=cause))
        runs.append(RunView(spec, spec.run_id, reduce_entries([end])))
    return SuiteState(name="s", warden="ended", started_wall=0.0, runs=tuple(runs), trials=trials)


def write_warden(
    folder: Path, state: WardenState, *, pid: int | None = None, detail: str = ""
) -> None:
    """warden.json; the default pid is this process, which certainly lives."""
    pid = os.getpid() if pid is None else pid
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        ticks = 1
    now = time.time()
    warden_file.write_warden(
        folder,
        warden_file.WardenFile(
            pid=pid, start_ticks=ticks, host=socket.gethostname(), token="t" * 16, state=state,
            detail=detail, started_wall=now - 754, updated_wall=now,
        ),
    )  # fmt: skip


def begin(folder: Path, number: int, *, wall: float | None = None) -> Journal:
    """Attempt and Hello of the run with that number, from 1."""
    run, spec = suite.read_runs(folder)[number - 1]
    journal = Journal(run / "events.jsonl", wall or time.time() - 300)
    journal.put(messages.Attempt(number=1, pid=4711, environment={}))
    journal.put(
        messages.Hello(t=1.1, engine=spec.engine, pid=4711, device="NVIDIA A100 80GB", threads=12)
    )
    return journal


def train(journal: Journal, steps: int, planned: int, *, gpu: bool = True, seed: int = 1) -> float:
    """Phases, plan, step windows and samples as a retrieval run sends them; returns the last t."""
    rng = random.Random(seed)
    journal.put(messages.Phase(t=1.2, name="load"))
    journal.put(
        messages.Plan(
            t=6.0, steps=planned, samples=planned * 64, warmup_steps=20, effective_batch=64,
            micro_batch=64, parameters=61_400_000, trainable_parameters=61_400_000,
            facts={"layers": "3,7,11 -> 2,5,8", "precision": "bf16"},
        )
    )  # fmt: skip
    journal.put(messages.Phase(t=6.0, name="train"))
    t = 6.0
    window = max(1, steps // 240)
    for done in range(window, steps + 1, window):
        step = 0.0864 + rng.gauss(0, 0.003) + (0.06 if rng.random() < 0.03 else 0)
        t += step * window
        progress = done / planned
        loss = 1.35 + 2.9 * math.exp(-5 * progress) + rng.gauss(0, 0.05)
        journal.put(
            messages.Step(
                t=t, step=done, count=window, samples=64 * window, seconds=step * window,
                warmup=done <= 20, data_wait=0.031 * step * window, loss=loss,
                lr=2e-5 * (1 - progress), epoch=progress,
                metrics={"r@1": 0.86 - 0.7 * math.exp(-4 * progress) + rng.gauss(0, 0.01)},
            )
        )  # fmt: skip
        if done % (window * 2) == 0:
            journal.put(_sample(t, rng, gpu=gpu, progress=progress))
    return t


def _sample(t: float, rng: random.Random, *, gpu: bool, progress: float) -> messages.Sample:
    used = int((17.2 + 0.8 * min(1.0, progress * 6) + rng.random() * 0.15) * GIB)
    card = gpu_readings.Gpu(
        index=0, used=used + GIB // 2, total=80 * GIB, process=used,
        utilisation=88 + rng.random() * 9, power=260 + rng.random() * 30,
    )  # fmt: skip
    return messages.Sample(
        t=t,
        rss_main=int(3.05 * GIB + rng.random() * 0.1 * GIB),
        rss_main_peak=int(3.15 * GIB),
        rss_tree=int((7.4 + rng.random() * 0.4) * GIB),
        cpu_percent=310 + rng.random() * 60,
        processes=13,
        gpus=(card,) if gpu else (),
        gpu_reason="" if gpu else "no NVIDIA driver library on this machine",
    )


def finish(journal: Journal, t: float, split: str, *, recall: float = 0.412) -> None:
    """Evaluation, metrics and a completed end."""
    journal.put(messages.Phase(t=t, name="encode"))
    journal.put(messages.Phase(t=t + 30, name="search"))
    for name, value in (
        ("recall@1", recall), ("recall@5", recall + 0.21), ("recall@10", recall + 0.29),
        ("recall@50", recall + 0.45), ("mrr@10", recall + 0.09), ("ndcg@10", recall + 0.13),
    ):  # fmt: skip
        journal.put(
            messages.Metric(
                t=t + 40, name=name, value=value, split=split, n=5046, low=value - 0.013,
                high=value + 0.014, method="bootstrap over queries, 1000, 95%",
            )
        )  # fmt: skip
    journal.put(
        messages.Notice(t=t + 41, code="truncated", text="212 questions were cut at 77 tokens")
    )
    journal.put(messages.Done(t=t + 42))
    journal.put(messages.End(t=t + 43, cause="completed", exit_code=0))


def log(folder: Path, number: int, text: str) -> None:
    """engine.log of a run."""
    run, _ = suite.read_runs(folder)[number - 1]
    (run / "engine.log").write_bytes(text.encode("utf-8", "surrogateescape"))


def record(
    suite_name: str, number: int, rng: random.Random, *, cause: str = "completed"
) -> schema.RunRecord:
    """One plausible record."""
    subset, steps, seconds = rng.choice(
        [("oven_train", 5300, 481.39), ("infoseek_bal76k_train", 1192, 126.03),
         ("evqa_train", 2616, 256.15), ("okvqa_mm_train", 129, 35.92)]
    )  # fmt: skip
    model = rng.choice(["tinyclip-61m", "clip-nano", "effnet-minilm"])
    none = Reading(reason="no GPU")
    seconds *= 1 + rng.gauss(0, 0.02)
    done = cause == "completed"
    return schema.RunRecord(
        identity=schema.Identity(
            suite=suite_name, run_id=f"{number:02d}-retrieval-{subset}-{model}", engine="retrieval",
            task="train", subset=subset, model=model, params={"epochs": 1, "batch_size": 64},
        ),
        environment=schema.Environment(python="3.11.9", cpu="AMD EPYC 7543", cores=12,
                                       gpu_reason="no GPU"),
        timing=schema.TimingRecord(
            end_to_end_seconds=Reading(value=seconds + 25.4),
            time_to_first_step=Reading(value=21.2),
            epoch_wall_seconds=Reading(value=seconds) if done else Reading(reason="no whole epoch"),
            epoch_steps=steps - 20 if done else 0, warmup_steps=20,
            step_median=Reading(value=0.0864, low=0.0861, high=0.0869, method="block bootstrap"),
            step_p95=Reading(value=0.0931), data_wait_share=Reading(value=0.031),
            samples_per_second=Reading(value=740.2), samples_per_second_median=Reading(value=741.0),
            phases={"import": 4.2, "load": 5.1, "train": seconds, "encode": 31.0},
        ),
        memory=schema.MemoryUse(
            rss_main_peak=Reading(value=3.15 * GIB), rss_tree_peak=Reading(value=7.8 * GIB),
            pss_tree_peak=Reading(reason="not sampled"), vram_allocated_peak=none,
            vram_reserved_peak=none, vram_process_peak=none, vram_device_peak=none,
        ),
        metrics=(
            schema.MetricRecord(
                name="recall@1", value=0.412 + rng.gauss(0, 0.02), split="okvqa_test",
                n=5046, low=0.399, high=0.426, method="bootstrap over queries",
            ),
        ) if done else (),
        train={"loss": 1.5 + rng.random(), "r@1": 0.8 + rng.gauss(0, 0.03)},
        samples=steps * 64, steps=steps if done else 37, planned_steps=steps,
        parameters=61_400_000, trainable_parameters=61_400_000,
        facts={"layers": "3,7,11 -> 2,5,8"},
        exit=schema.Exit(cause=cause, code=0 if done else 1, phase="train", step=steps,
                         detail="" if done else "CUDA out of memory: micro-batch 64 does not fit"),
        counters={"malformed": 0.0}, folder=f"{suite_name}/runs/x",
        started_wall=1_795_000_000 + number * 600.0, ended_wall=1_795_000_400 + number * 600.0,
    )  # fmt: skip


def demo_specs(log_root: Path, cache_root: Path) -> list[RunSpec]:
    """The runs of the preset `demo`."""
    return expand.expand(plan.load_preset("demo"), cache_root, log_root)


def record_of(spec: RunSpec, *, seconds: float, host: str | None = None) -> schema.RunRecord:
    """A completed record of a planned run on this machine, half of its time training."""
    base = record("20261127-120000-demo-71d3", 1, random.Random(1))
    identity = base.identity.model_copy(
        update={
            "run_id": spec.run_id, "engine": spec.engine, "task": spec.task, "subset": spec.subset,
            "model": spec.model, "params": spec.params, "seed": spec.seed, "repeat": spec.repeat,
        }
    )  # fmt: skip
    environment = base.environment.model_copy(update={"hostname": host or platform.node()})
    timing = base.timing.model_copy(
        update={"end_to_end_seconds": Reading(value=seconds), "phases": {"train": seconds / 2}}
    )
    return base.model_copy(
        update={
            "identity": identity, "environment": environment, "timing": timing, "steps": 128,
            "started_wall": time.time() - 86_400,
        }
    )  # fmt: skip


def write_records(log_root: Path, count: int, *, seed: int = 3) -> None:
    """`count` records of many suites, written in one go (append fsyncs each line)."""
    rng = random.Random(seed)
    log_root.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        cause = "failed" if number % 17 == 5 else "completed"
        name = f"20261121-{number // 8:06d}-weekly-1a2b"
        lines.append(record(name, number, rng, cause=cause).model_dump_json())
    (log_root / "results.jsonl").write_text("".join(f"{line}\n" for line in lines))


def append_record(log_root: Path, made: schema.RunRecord) -> None:
    """One record, as a warden appends it."""
    store.append_record(log_root / "results.jsonl", made)


LOG = """\
loading wkcn/TinyCLIP-ViT-61M-32-Text-29M-LAION400M (safetensors, 243 MB)
text tower: 9 layers, asked for 3,7,11 -> 2,5,8
subset evqa_train: 167,369 records, corpus 51,472 passages
image cache: 167,369 of 167,369 pictures at 224 px
precision bf16, TF32 on, fused AdamW, 12 loader workers
epoch 1 of 1: 2,616 steps of 64
"""


def busy_root(log_root: Path, *, gpu: bool = True) -> Path:
    """One suite at work: one run completed, one failed, one training, one queued."""
    model = "tinyclip-61m"
    folder = make_suite(
        log_root,
        [("okvqa_mm_train", model), ("infoseek_bal76k_train", model), ("evqa_train", model),
         ("oven_train", model)],
        state="running", stamp="20261121-091412",
    )  # fmt: skip
    now = time.time()
    first = begin(folder, 1, wall=now - 700)
    finish(first, train(first, 129, 129, gpu=gpu), "okvqa_test")
    second = begin(folder, 2, wall=now - 600)
    t = train(second, 411, 1192, gpu=gpu, seed=2)
    second.put(
        messages.Failed(
            t=t, error="CUDA out of memory: micro-batch 64 does not fit", hint="oom-cuda"
        )
    )
    second.put(messages.End(t=t + 1, cause="oom-cuda", exit_code=1))
    third = begin(folder, 3, wall=now - 160)
    train(third, 1684, 2616, gpu=gpu, seed=3)
    third.put(
        messages.Notice(t=150.0, code="truncated", text="212 questions were cut at 77 tokens")
    )
    log(folder, 3, LOG)
    return folder
