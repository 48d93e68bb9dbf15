"""Audit rules about captions: their lengths, generation, the judge, METEOR, diversity."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from datasets_mm.profile.subset_facts import BYTES_PER_TOKEN, TextLengths
from results.records.schema import MetricRecord
from results.text import formats
from results.text.metric_names import split_name
from workbench.audit.finding import (
    NO_CAPTIONS,
    NO_RECORD,
    NO_ROWS,
    Fault,
    Impossible,
    Unjudged,
    Verdict,
    decide,
)
from workbench.audit.run_facts import RunFacts

SOME: Final = 0.05
"""Share of captions from which on their length is a fault."""
MUCH_LONGER: Final = 4
"""The longest caption that a plan learns, over the longest that it generates, from which on it
expects longer ones than it generates."""
PASS_COST: Final = 0.03
"""Micro-batches of training that one decoding pass takes. Measured by the SigLIP study on an A100:
23 s a caption of 128 tokens, 5 min 40 s an epoch of 55 micro-batches."""
PLANNED_SHARE: Final = 0.25
MEASURED_SHARE: Final = 0.5
"""Share of generation in the time of training, as planned and as measured."""
COLLAPSE: Final = 0.5
"""Share of unique captions below which they say little of their media."""
METEOR: Final = "METEOR"
BLANKS: Final = "split at blanks"
"""In the name of a METEOR without a tokenizer for its language."""


def judge_generation_length(run: RunFacts) -> Verdict:
    """Generation: `max_new_tokens` against the lengths of the captions."""
    limit, longest = run.get("max_new_tokens"), run.get("max_length")
    if run.engine != "captioning" or limit is None:
        return Unjudged("captioning-only")
    if run.data is None or not run.data.captions.n:
        if not longest or longest < MUCH_LONGER * limit:
            return Unjudged(NO_CAPTIONS)
        return Fault({"limit": str(limit), "longest": str(longest)}, form="planned")
    return _judge_length(run.data.captions, int(limit))


def judge_truncation(run: RunFacts) -> Verdict:
    """Training: a caption longer than `max_length` loses its last part."""
    if run.engine != "captioning":
        return Unjudged("captioning-only")
    if run.data is None or not run.data.captions.n:
        return Unjudged(NO_CAPTIONS)
    return _judge_length(run.data.captions, int(run.get("max_length") or 0))


def judge_context(run: RunFacts) -> Verdict:
    """Judge: its text tower reads the first tokens of a caption only."""
    if run.engine != "captioning":
        return Unjudged("captioning-only")
    if run.judge_context is None:
        return None
    if run.data is not None and run.data.judged.n:
        return _judge_length(run.data.judged, run.judge_context)
    limit = int(run.get("max_new_tokens") or 0)
    values = {"limit": str(run.judge_context), "longest": str(limit)}
    return decide(values, faulty=limit > run.judge_context, form="planned")


def _judge_length(lengths: TextLengths, limit: int) -> Verdict:
    share = lengths.share_over(limit)
    values = {
        "share": formats.percent(share), "n": formats.count(lengths.n), "limit": str(limit),
        "median": formats.count(lengths.median),
        "tokenizer": lengths.tokenizer or f"– ({BYTES_PER_TOKEN} B/token)",
    }  # fmt: skip
    return decide(values, faulty=share >= SOME)


def judge_end_token(run: RunFacts) -> Verdict:
    """End token: without it among the labels a model never learns to stop."""
    if run.engine == "retrieval":
        return Unjudged("no-generation")
    return Impossible() if run.is_own else Unjudged("imported")


def judge_padding(run: RunFacts) -> Verdict:
    """Padding: to the longest text of a batch, not to `max_length`."""
    if run.is_own and run.get("padding") is None:
        return Impossible()
    if run.get("padding") != "max_length":
        return Unjudged("imported") if run.get("padding") is None else None
    lengths = run.data.captions if run.data else TextLengths()
    mean = formats.number(lengths.mean, 0) if lengths.n else "n/a"
    return Fault({"longest": str(run.get("max_length")), "mean": mean})


def judge_generation_time(run: RunFacts) -> Verdict:
    """Generation: its share of the time, as measured, or before the run by counting passes."""
    if run.engine != "captioning" or not run.trains:
        return Unjudged("captioning-only")
    record = run.completed
    if record is not None and (record.timing.phases or run.get("eval_batch_size") is None):
        return _judge_phases(record.timing.phases)
    if not run.steps:
        return Unjudged(NO_ROWS)
    passes = _count_decoding_passes(run)
    micro_batches = sum(steps.total * steps.gradient_accumulation_steps for steps in run.steps)
    share = passes * PASS_COST / (passes * PASS_COST + micro_batches or 1)
    values = {
        "passes": formats.count(passes), "micro_batches": formats.count(micro_batches),
        "share": formats.percent(share), "batch": str(run.get("eval_batch_size")),
    }  # fmt: skip
    return decide(values, faulty=share >= PLANNED_SHARE, form="planned")


def _judge_phases(phases: dict[str, float]) -> Verdict:
    generation = phases.get("generate", 0.0) + phases.get("eval", 0.0)
    training = phases.get("train", 0.0) + phases.get("warmup", 0.0)
    if not training:
        return Unjudged("not-timed")
    share = generation / (generation + training)
    values = {
        "generation": formats.duration(generation), "training": formats.duration(training),
        "share": formats.percent(share),
    }  # fmt: skip
    return decide(values, faulty=share >= MEASURED_SHARE)


def _count_decoding_passes(run: RunFacts) -> int:
    """Passes of the language model that write captions: validations and the evaluation after."""
    rows, batch = run.evaluation_rows, int(run.get("eval_batch_size") or 1)
    limit = int(run.get("evaluate_limit") or 0) or 1 << 30
    validated = rows.get(str(run.get("validate_on")), 1 << 30)
    validations = len(run.validations) or sum(run.validation_counts)
    counts = [min(int(run.get("evaluate_sample") or 0), validated)] * validations
    counts += [int(run.get("evaluate_train") or 0)]
    counts += [min(rows.get(name, 0), limit) for name in run.evaluate_on]
    return sum(-(-count // batch) for count in counts) * int(run.get("max_new_tokens") or 0)


def judge_meteor_tokenizer(run: RunFacts) -> Verdict:
    """METEOR: Korean words split at blanks keep their particles, and few of them match."""
    if run.engine != "captioning":
        return Unjudged("captioning-only")
    if (record := run.completed) is not None:
        names = {m.name for m in record.metrics if m.name.startswith(METEOR)}
        only_blanks = bool(names) and all(BLANKS in name for name in names)
        return Fault({"name": min(names)}) if only_blanks else None
    if "meteor" not in (run.get("scorers") or ()) or find_spec("kiwipiepy") is not None:
        return None
    if run.data is None:
        return Unjudged(NO_CAPTIONS)
    return Fault({"package": "kiwipiepy"}, form="planned") if "ko" in run.data.languages else None


def judge_meteor_rules(runs: Sequence[RunFacts]) -> Verdict:
    """METEOR: runs without a rule in common on a split cannot be compared."""
    if all(run.engine != "captioning" for run in runs):
        return Unjudged("captioning-only")
    rules: dict[str, list[tuple[str, set[str]]]] = {}
    for run in runs:
        names_of_split: dict[str, set[str]] = {}
        for metric in _meteors(run):
            names_of_split.setdefault(metric.split, set()).add(metric.name)
        for split, names in names_of_split.items():
            rules.setdefault(split, []).append((run.name, names))
    if not rules:
        return Unjudged(NO_RECORD)
    mixed = {
        split: entries
        for split, entries in rules.items()
        if not set.intersection(*(names for _, names in entries))
    }
    if not mixed:
        return None
    text = "; ".join(
        f"{split}: {', '.join(sorted(set.union(*(names for _, names in entries))))}"
        for split, entries in mixed.items()
    )
    run_names = [name for entries in mixed.values() for name, _ in entries]
    return Fault({"rules": text}, runs=tuple(dict.fromkeys(run_names)))


def _meteors(run: RunFacts) -> list[MetricRecord]:
    metrics = run.record.metrics if run.record else ()
    return [
        m
        for m in metrics
        if m.name.startswith(METEOR) and m.split != "train" and not split_name(m.name).variant
    ]


def judge_diversity(run: RunFacts) -> Verdict:
    """Diversity: unique captions over captions; other scores mean little where it is low."""
    if run.engine != "captioning":
        return Unjudged("captioning-only")
    if run.completed is None:
        return Unjudged(NO_RECORD)
    measured = [
        m for m in run.completed.metrics if m.name == "diversity" and m.split != "train"
    ]  # fmt: skip
    if not measured:
        return Unjudged("no-metric")
    metric = min(measured, key=lambda m: m.value)
    values = {
        "unique": formats.count(metric.value * metric.n), "n": formats.count(metric.n),
        "diversity": formats.number(metric.value, 2), "split": metric.split,
    }  # fmt: skip
    return decide(values, faulty=metric.value < COLLAPSE)
