"""Audit rules about model and data: precision, saved weights, sizes, modes, media, waiting."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from engines.cuda_support import BF16
from results.records.schema import RunRecord
from results.text import formats
from workbench.audit.finding import (
    NO_DATA,
    NO_RECORD,
    NO_TRAINING,
    Impossible,
    Unjudged,
    Verdict,
    decide,
)
from workbench.audit.run_facts import RunFacts

STATED: Final = re.compile(r"(?<![\w.,-])(\d+(?:\.\d+)?) ?M\b")
"""A size in millions, such as `8M`; names of models (`TinyCLIP-61M`) are not sizes of a part."""
COUNTED: Final = re.compile(r"(\d[\d,]*\d) parameters")
TOLERANCE: Final = 0.1
"""Relative difference of a stated size that rounding explains."""
EQUAL_MEDIA: Final = 5
EQUAL_SHARE: Final = 0.01
STALL_SHARE: Final = 0.2
"""Share of the steps' time in which the device waited for data."""
REPEATED_LOSS: Final = 0.01
"""Relative difference of two losses of equal weights that rounding explains."""


def judge_bf16(run: RunFacts) -> Verdict:
    """Precision: bf16 on a GPU that lacks it in hardware (T4, V100: all before Ampere)."""
    if run.capability is None:
        return Unjudged("no-gpu")
    precision = str(run.get("precision"))
    values = {
        "gpu": run.gpu, "capability": ".".join(map(str, run.capability)), "precision": precision
    }  # fmt: skip
    return decide(values, faulty=precision == "bf16" and run.capability < BF16)


def judge_label_alignment(run: RunFacts) -> Verdict:
    """Label alignment: the answer is part of the training text, and the loss is on it alone."""
    if run.engine == "vqa":
        return Impossible() if run.is_own else Unjudged("imported")
    return Unjudged("vqa-only")


def judge_saved_weights(run: RunFacts) -> Verdict:
    """Trained model: its file holds all parameters that were trained, LoRA's too."""
    if not run.trains:
        return Unjudged(NO_TRAINING)
    record = run.completed
    if record is None or not record.trainable_parameters:
        return Unjudged(NO_RECORD)
    if run.saved_parameters is None:
        return Unjudged("no-model")
    saved, trained = sum(run.saved_parameters.values()), record.trainable_parameters
    lora = sum(size for name, size in run.saved_parameters.items() if ".lora_" in name)
    values = {
        "saved": formats.count(saved), "trained": formats.count(trained),
        "lora": formats.count(lora),
    }  # fmt: skip
    return decide(values, faulty=saved < trained)


def judge_stated_size(run: RunFacts) -> Verdict:
    """Sizes: what a label or a finding states against the parameters that were counted."""
    stated = [float(number) * 1e6 for text in run.statements for number in STATED.findall(text)]
    if not stated:
        return None
    if run.record is None:
        return Unjudged(NO_RECORD)
    counts = list(_count_parts(run.record))
    if not counts:
        return Unjudged(NO_RECORD)
    wrong = [
        size for size in stated if all(abs(size - count) > TOLERANCE * count for count in counts)
    ]
    values = {
        "stated": ", ".join(formats.parameters(size) for size in wrong or stated),
        "counted": ", ".join(formats.count(count) for count in counts),
    }  # fmt: skip
    return decide(values, faulty=bool(wrong))


def _count_parts(record: RunRecord) -> Iterator[int]:
    """Parameters of the parts of a model that the record counts."""
    for text in record.facts.values():
        yield from (int(number.replace(",", "")) for number in COUNTED.findall(text))
    for number in (record.trainable_parameters, record.parameters):
        if number:
            yield number


def judge_media(run: RunFacts) -> Verdict:
    """Media: equal or one-coloured pictures are what stands in for missing files."""
    if run.data is None or not run.data.media:
        return Unjudged(NO_DATA)
    data, least = run.data, max(EQUAL_MEDIA, EQUAL_SHARE * run.data.media)
    example = data.blank_example or data.equal_example
    values = {
        "equal": formats.count(data.equal if data.equal > 1 else 0),
        "blank": formats.count(data.blank), "n": formats.count(data.media),
        "example": f" ({example})" if example else "",
    }  # fmt: skip
    return decide(values, faulty=max(data.blank, data.equal) >= least)


def judge_answered(run: RunFacts) -> Verdict:
    """Inference: every row of a subset should have an answer."""
    if run.identity.task != "infer":
        return Unjudged("no-inference")
    if run.completed is None:
        return Unjudged(NO_RECORD)
    measured = [m for m in run.completed.metrics if m.name == "coverage"]
    if not measured:
        return Unjudged("no-metric")
    metric = min(measured, key=lambda m: m.value)
    values = {
        "missing": formats.count(round((1 - metric.value) * metric.n)),
        "n": formats.count(metric.n), "split": metric.split,
    }  # fmt: skip
    return decide(values, faulty=metric.value < 1)


def judge_data_wait(run: RunFacts) -> Verdict:
    """Input pipeline: the share of the steps in which the device waited for data."""
    if not run.trains:
        return Unjudged(NO_TRAINING)
    if run.completed is None:
        return Unjudged(NO_RECORD)
    timing = run.completed.timing
    stall, wait = timing.data_stall_share.value, timing.data_wait_share.value
    share = wait if stall is None else stall
    if share is None:
        return Unjudged("not-timed")
    values = {
        "share": formats.percent(share), "num_workers": str(run.get("num_workers")),
        "rate": formats.rate(timing.samples_per_second.value or 0.0),
    }  # fmt: skip
    return decide(values, faulty=share >= STALL_SHARE)


def judge_evaluation_mode(run: RunFacts) -> Verdict:
    """Evaluation mode: equal weights give equal losses; dropout would change them each time."""
    impossible = Impossible() if run.is_own else Unjudged("not-repeated")
    if run.identity.task != "evaluate" or run.completed is None or run.parent is None:
        return impossible
    losses = [
        {(m.name, m.split, m.n): m.value for m in record.metrics if m.name == "loss"}
        for record in (run.parent, run.completed)
    ]
    repeated = losses[0].keys() & losses[1].keys()
    if not repeated:
        return impossible
    key = max(repeated, key=lambda key: abs(losses[0][key] - losses[1][key]))
    first, second = (loss[key] for loss in losses)
    values = {
        "split": key[1], "n": formats.count(key[2]), "first": formats.number(first),
        "second": formats.number(second),
    }  # fmt: skip
    return decide(values, faulty=abs(first - second) > REPEATED_LOSS * abs(first))
