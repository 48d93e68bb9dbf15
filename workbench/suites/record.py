"""The record of an ended run, computed from its state. Pure: no clock, no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines import messages, protocol
from results.records import schema
from results.records.schema import Reading
from workbench.processes import gpu_selection
from workbench.processes.gpu_selection import NOT_COUNTED
from workbench.suites import oom_retry
from workbench.suites.energy import build_energy
from workbench.suites.state import RunState

DISAGREEMENT = 0.05
"""Rates that differ by more than this share, counted two ways, flag the run (design: 5 %)."""


def build_record(spec: protocol.RunSpec, run: RunState, folder: str) -> schema.RunRecord:
    """The record of one attempt; `folder` is the run folder relative to the log root."""
    end, plan = run.end, run.plan
    return schema.RunRecord(
        identity=_identity(spec, run),
        environment=_environment(run),
        timing=_timing(run),
        memory=_memory(run),
        energy=_energy(run),
        metrics=tuple(
            schema.MetricRecord.model_validate(m.model_dump(exclude={"kind", "t"}))
            for m in run.metrics
        ),
        evaluations=tuple(
            schema.EvaluationRecord.model_validate(e.model_dump(exclude={"kind", "t"}))
            for e in run.evaluations
        ),
        train=_train(run),
        training_epochs=tuple(
            schema.EpochRecord.model_validate(e.model_dump(exclude={"kind", "t"}))
            for e in run.epochs
        ),
        stages=tuple(map(_stage, run.stages)),
        forecast=_forecast(run),
        fit=_fit(spec, run),
        origins=spec.origins,
        samples=plan.samples if plan else 0,
        steps=run.step,
        epochs=_epochs(spec, run),
        planned_steps=plan.steps if plan else 0,
        parameters=plan.parameters if plan else None,
        trainable_parameters=plan.trainable_parameters if plan else None,
        facts=_facts(run),
        artifacts=_artifacts(run),
        exit=schema.Exit(
            cause=end.cause if end else "unknown",
            code=end.exit_code if end else None,
            signal=end.signal if end else None,
            detail=(end.detail if end else "") or (run.failed.error if run.failed else ""),
            phase=run.phase,
            step=run.step,
        ),
        counters=_counters(run),
        notices=tuple(f"{n.code}: {n.text}" for n in run.notices),
        shared_host=end.shared_host if end else (),
        folder=folder,
        started_wall=run.started_wall,
        ended_wall=run.ended_wall,
    )


def _epochs(spec: protocol.RunSpec, run: RunState) -> float | None:
    if run.last is not None:
        return run.last.epoch or None  # 0: an engine that does not count them
    return 0.0 if spec.task == "train" else None


def _facts(run: RunState) -> dict[str, str]:
    """Facts of the engine's plan, and the batch's micro-batches if an OOM changed them."""
    facts = dict(run.plan.facts) if run.plan else {}
    batch = oom_retry.describe_batch(run)
    return {**facts, "batch": batch} if "(" in batch else facts


def _artifacts(run: RunState) -> tuple[schema.ArtifactRecord, ...]:
    """The last announcement of each file."""
    last = {artifact.path: artifact for artifact in run.artifacts}
    names = set(schema.ArtifactRecord.model_fields)
    return tuple(
        schema.ArtifactRecord(**artifact.model_dump(include=names)) for artifact in last.values()
    )


def _identity(spec: protocol.RunSpec, run: RunState) -> schema.Identity:
    return schema.Identity(
        suite=spec.suite,
        run_id=spec.run_id,
        attempt=max(1, run.attempt),
        engine=spec.engine,
        task=spec.task,
        subset=spec.subset,
        subset_fingerprint=run.plan.subset_fingerprint if run.plan else "",
        model=spec.model,
        base_model=spec.base_model,
        model_revision=run.plan.model_revision if run.plan else "",
        params=spec.params,
        seed=spec.seed,
        repeat=spec.repeat,
        label=spec.label,
        plan_hash=spec.plan_hash,
        probe_steps=spec.probe.steps if spec.probe else 0,
        trial=schema.TrialRecord(**spec.trial.model_dump()) if spec.trial else None,
    )


def _environment(run: RunState) -> schema.Environment:
    machine = schema.Environment.model_validate(dict(run.environment))
    if run.hello is None:
        return machine
    return machine.model_copy(
        update={
            "device": run.hello.device,
            "run_gpus": _run_gpus(run.hello, machine.gpus),
            "threads": run.hello.threads,
            "versions": {**machine.versions, **run.hello.versions},
        }
    )


def _run_gpus(
    hello: messages.Hello, machine: Sequence[schema.GpuInfo]
) -> tuple[schema.GpuInfo, ...]:
    """The GPUs as the engine named them, with NVML's row and UUID where it lists them."""
    rows = []
    for number, gpu in enumerate(hello.gpus):
        facts = gpu.model_dump(include=set(schema.GpuInfo.model_fields), exclude_unset=True)
        listed = gpu_selection.match_engine_gpus(
            [gpu], gpu_selection.resolve_visible([], {}, machine), machine
        ).indexes
        same = next((row for row in machine if row.index in listed), None)
        if same is None:
            rows.append(schema.GpuInfo(index=number, **facts))
        else:
            facts.pop("uuid", None)
            rows.append(same.model_copy(update=facts))
    return tuple(rows)


def _timing(run: RunState) -> schema.TimingRecord:
    missing = "the engine ended before it could say" if run.done is None else "not measured"
    timing = run.timing or messages.Timing()
    fields = {
        name: _reading(timing, name, missing)
        if field.annotation is Reading
        else getattr(timing, name)
        for name, field in schema.TimingRecord.model_fields.items()
        if name in messages.Timing.model_fields
    }
    fields["timed_steps"] = timing.timed_steps or (run.timed_steps if run.timing else 0)
    return schema.TimingRecord(
        **fields, end_to_end_seconds=_end_to_end(run), phases=run.phase_seconds()
    )


def _reading(timing: messages.Timing, name: str, missing: str = "not measured") -> Reading:
    """A number of the timing; `missing`: why there is none, where the timing does not say."""
    value = getattr(timing, name)
    if value is None:
        return Reading(reason=timing.reasons.get(name) or missing)
    low, high = (getattr(timing, f"{name}_{bound}", None) for bound in ("low", "high"))
    if low is None and high is None:
        return Reading(value=value, method=timing.methods.get(name, ""))
    return Reading(value=value, low=low, high=high, method=timing.interval_method)


def _stage(stage: messages.StageSummary) -> schema.StageRecord:
    fields = stage.model_dump(exclude={"kind", "t", "timing", "wall_seconds"})
    wall = stage.wall_seconds
    reason = "the run was resumed within the stage" if wall is None else ""
    names = ("epoch_wall_seconds", "step_median", "samples_per_second")
    readings = {name: _reading(stage.timing, name) for name in names}
    return schema.StageRecord(**fields, wall_seconds=Reading(value=wall, reason=reason), **readings)


def _forecast(run: RunState) -> schema.ForecastRecord | None:
    forecast = run.forecast
    if forecast is None:
        return None

    def reading(name: str) -> Reading:
        value = getattr(forecast, f"{name}_seconds")
        if value is None:
            return Reading(reason=forecast.reasons.get(name) or "not measured")
        if getattr(forecast, f"{name}_measured"):
            return Reading(
                value=value, method=f"measured: {forecast.steps} timed steps, all there are"
            )
        bounds = {key: getattr(forecast, f"{name}_{key}") for key in ("low", "high")}
        return Reading(value=value, method=f"forecast from {forecast.method}", **bounds)

    start = forecast.start_seconds
    return schema.ForecastRecord(
        steps=forecast.steps,
        asked_steps=forecast.asked_steps,
        max_uncertainty=forecast.max_uncertainty,
        samples=forecast.samples,
        epoch_steps=forecast.epoch_steps,
        epoch_seconds=reading("epoch"),
        run_steps=forecast.run_steps,
        run_seconds=reading("run"),
        start_seconds=Reading(value=start, reason="" if start else "no step was done"),
        warmup_seconds=forecast.warmup_seconds,
        disk=forecast.disk,
    )


def _end_to_end(run: RunState) -> Reading:
    if run.end is None or run.attempt == 0 or run.pid == 0:  # 0: no process could be made
        return Reading(reason="the engine was not started" if run.end else "the run has not ended")
    return Reading(value=run.end.t)


def _memory(run: RunState) -> schema.MemoryUse:
    sampled = "sampled by the warden"
    gpu_reason = (run.sample.gpu_reason if run.sample else "") or "no GPU was sampled"
    torch = [m for m in run.memory.values() if m.reason or m.vram_allocated_peak is not None]
    torch_reason = next((m.reason for m in torch if m.reason), "") or "the engine named none"

    unsampled = _unsampled_nodes(run)

    def peak(name: str) -> Reading:
        if unsampled:
            return Reading(reason=unsampled)
        value = run.peaks.get(name)
        if value is None:
            return Reading(reason="the run ended before the first sample")
        return Reading(value=value, method=sampled)

    def allocator(name: str) -> Reading:
        values = [v for m in run.memory.values() if (v := getattr(m, name)) is not None]
        if not values:
            return Reading(reason=torch_reason)
        return Reading(value=max(values), method="torch")

    def nvml(name: str) -> Reading:
        if unsampled:
            return Reading(reason=unsampled)
        return _nvml_peak(run, name, gpu_reason)

    return schema.MemoryUse(
        rss_main_peak=_rss_main(run),
        rss_tree_peak=peak("rss_tree"),
        pss_tree_peak=peak("pss_tree"),
        vram_allocated_peak=allocator("vram_allocated_peak"),
        vram_reserved_peak=allocator("vram_reserved_peak"),
        vram_process_peak=nvml("vram_process"),
        vram_device_peak=nvml("vram_device"),
    )


def _unsampled_nodes(run: RunState) -> str:
    """Why figures of all processes or GPUs of the run are missing; empty: they were sampled."""
    nodes = run.environment.get("nodes") or ()
    return f"sampled on one of its {len(nodes)} nodes only" if len(nodes) > 1 else ""


def _energy(run: RunState) -> schema.EnergyUse:
    if reason := _unsampled_nodes(run):
        names = schema.EnergyUse.model_fields
        return schema.EnergyUse(**dict.fromkeys(names, Reading(reason=reason)))
    return build_energy(run.energy, run.notice_counts)


def _fit(spec: protocol.RunSpec, run: RunState) -> schema.MemoryEstimateRecord | None:
    """The memory estimate of the spec and the measured peak of the same quantity."""
    if not spec.fit:
        return None
    kept = {key: value for key, value in spec.fit.items() if key not in ("tensors", "total")}
    for key in ("tensors", "total"):  # a cost probe runs no other phase
        sizes = spec.fit.get(key, {})
        kept[key] = {p: size for p, size in sizes.items() if not spec.probe or p == "train"}
    measured = _memory(run).vram_allocated_peak if kept.get("gpu") else _rss_on_cpu(run)
    fit = schema.MemoryEstimateRecord(**kept, measured=measured)
    # A later attempt does what is left of a run, or does it with a smaller micro-batch.
    first = run.attempt <= 1 and not run.ooms
    whole = first and run.end is not None and run.end.cause == "completed"
    if not whole or not measured.value or not fit.expected:
        return fit
    return fit.model_copy(update={"error": fit.expected / measured.value - 1})


def _rss_on_cpu(run: RunState) -> Reading:
    device = run.hello.device if run.hello else "cpu"
    if device != "cpu":
        return Reading(reason=f"forecast for a CPU, and it ran on {device}")
    return _rss_main(run)


def _rss_main(run: RunState) -> Reading:
    """The larger of the peaks reported by the engine and read by the warden; both are VmHWM."""
    endings = [ending.rss_peak for ending in (run.done, run.failed) if ending is not None]
    reported = [*(memory.rss_peak for memory in run.memory.values()), *endings]
    readings = [*reported, run.peaks.get("rss_main_peak")]
    values = [value for value in readings if value is not None]
    if not values:
        return Reading(reason="the run ended before the first sample of the loaded engine")
    return Reading(value=max(values), method="VmHWM")


def _nvml_peak(run: RunState, name: str, gpu_reason: str) -> Reading:
    """Sum over the run's GPUs of each one's peak; the field's own reason where NVML gave none.

    Samples have the run's GPUs only; journals from before engines named theirs have all of the
    machine's, of which no sum is the run's.
    """
    values = [v for key, v in run.peaks.items() if key.startswith(f"{name}[")]
    named = len(run.hello.gpus) if run.hello else 0
    if len(values) > 1 and not named:
        return Reading(reason=f"the engine did not say which of {len(values)} GPUs it took")
    reserved = any(memory.vram_reserved_peak for memory in run.memory.values())
    if name == "vram_process" and reserved and not all(values):
        return Reading(reason=NOT_COUNTED)
    if len(values) >= max(1, named):
        several = f", sum of the peaks of {len(values)} GPUs" if len(values) > 1 else ""
        return Reading(value=sum(values), method=f"NVML{several}")
    field = {"vram_process": "process", "vram_device": "used"}[name]
    gpus = run.sample.gpus if run.sample else ()
    reasons = [g.reasons[field] for g in gpus if field in g.reasons]
    if values and not reasons:
        return Reading(reason=f"NVML gave it of {len(values)} of {named} GPUs only")
    return Reading(reason=reasons[0] if reasons else gpu_reason)


def _train(run: RunState) -> dict[str, float]:
    """Values of the last window of full batches, else of the last; `batch`: candidates of r@1."""
    if run.last is None:
        return {}
    shown, plan = run.last_full or run.last, run.plan
    batch = {}
    means = {"epoch": shown.epoch} if shown.epoch else {}  # 0: an engine that does not count them
    if run.timing is not None and run.timing.epoch_loss is not None:
        means["epoch_loss"] = run.timing.epoch_loss
    if plan is not None:
        short = run.last_full is None and plan.micro_batch == plan.effective_batch
        # Means are weighted by samples, and so is chance: steps / samples.
        computable = short and shown.count > 0 and shown.samples > 0
        batch["batch"] = shown.samples / shown.count if computable else float(plan.micro_batch)
    return {"loss": shown.loss, **means, "lr": run.last.lr, **shown.metrics, **batch}


def _counters(run: RunState) -> dict[str, float]:
    counters: dict[str, float] = dict(run.end.counters) if run.end else {}
    counters |= {f"notice:{code}": float(count) for code, count in run.notice_counts.items()}
    extra: Mapping[str, Any] = {
        "dropped_by_emitter": run.done.dropped if run.done else 0,
        "unknown_messages": run.unknown,
        "journal_gaps": run.gaps,
        "ooms": len(run.ooms),
        "skipped_steps": run.skipped_steps,
        "rates_disagree": int(rates_disagree(run.timing)),
    }
    return counters | {name: float(value) for name, value in extra.items() if value}


def rates_disagree(timing: messages.Timing | None) -> bool:
    """Whether the two ways to count samples per second differ by more than `DISAGREEMENT`."""
    if timing is None or not timing.samples_per_second or not timing.samples_per_second_median:
        return False
    ratio = timing.samples_per_second / timing.samples_per_second_median
    return abs(ratio - 1) > DISAGREEMENT
