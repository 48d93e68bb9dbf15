"""Audit rules about the choice of an epoch, and about comparing runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from results.records.schema import MetricRecord, RunRecord
from results.text import formats
from workbench.audit.finding import NO_TRAINING, Fault, Unjudged, Verdict
from workbench.audit.run_facts import RunFacts

CAPTION_SCORES: Final = frozenset({"siglip", "meteor", "cider"})
"""Metrics that one good sentence for all media can raise."""
CLEAR_LOSS: Final = 0.05
"""Relative difference of the final weights to the best ones that is worth naming."""
COMPARED_METRICS: Final = (
    "SigLIP probability", "SigLIP cosine", "cosine (local", "METEOR", "CIDEr", "accuracy",
    "recall@1", "mrr@10",
)  # fmt: skip
"""Metrics that experiments are ranked by, by the start of their names; the first that is there."""


def judge_reported_split(run: RunFacts) -> Verdict:
    """Choice of the epoch: the split that chooses should not be one that is reported."""
    if not run.trains:
        return Unjudged(NO_TRAINING)
    if not run.monitored:
        return None
    split = str(run.get("validate_on") or "")
    if run.engine == "vqa":  # its held-out rows choose and are reported
        split = "validation"
    elif not split or split not in run.evaluate_on:
        return None
    return Fault({"split": split, "monitor": str(run.get("monitor"))})


def judge_monitor(run: RunFacts) -> Verdict:
    """Monitor: a score of captions without their diversity can rise while they become one."""
    if run.engine != "captioning":
        return Unjudged("captioning-only")
    if not run.trains or not run.monitored or run.get("monitor") not in CAPTION_SCORES:
        return None
    return Fault({"monitor": str(run.get("monitor"))})


def judge_final_weights(run: RunFacts) -> Verdict:
    """Final weights: those of the last epoch are reported although another was better."""
    if not run.trains:
        return Unjudged(NO_TRAINING)
    if run.keeps_best:
        return None
    if run.completed is None:
        if not run.get("validate_on") or run.validation_count < 2:
            return None
        values = {"validations": str(run.validation_count), "split": str(run.get("validate_on"))}
        return Fault(values, form="planned")
    metric = str(run.get("monitor") or "loss")
    history = [(row["epoch"], row[metric]) for row in run.validations if metric in row]
    if len(history) < 2:
        return Unjudged("no-validations")
    choose = min if metric == "loss" else max
    epoch, best = choose(history, key=lambda entry: entry[1])
    last_epoch, last = history[-1]
    if abs(best - last) <= CLEAR_LOSS * max(abs(best), abs(last)):
        return None
    return Fault({
        "metric": metric, "epoch": f"{epoch:g}", "best": formats.number(best),
        "last_epoch": f"{last_epoch:g}", "last": formats.number(last),
    })  # fmt: skip


def judge_seeds(runs: Sequence[RunFacts]) -> Verdict:
    """Seeds: with one, a difference between experiments includes that of chance."""
    trained = [run for run in runs if run.trains]
    experiments = {(run.identity.label, run.identity.model) for run in trained}
    seeds = {(run.identity.seed, run.identity.repeat) for run in trained}
    if len(experiments) < 2 or len(seeds) > 1:
        return None
    return Fault({"experiments": str(len(experiments)), "seed": str(trained[0].identity.seed)})


def judge_ranking(runs: Sequence[RunFacts]) -> Verdict:
    """Ranking: the best run against the others, by the interval of their difference."""
    groups: dict[tuple[str, int, int], dict[str, RunRecord]] = {}
    for run in runs:
        if run.trains and run.completed is not None:
            key = (run.identity.subset, run.identity.seed, run.identity.repeat)
            groups.setdefault(key, {})[run.name] = run.completed
    if all(len(group) < 2 for group in groups.values()):
        return Unjudged("no-pair")
    ties = [tie for group in groups.values() if (tie := _find_tie(group))]
    if not ties:
        return None
    return Fault(
        {"pairs": "; ".join(text for _, text in ties)},
        runs=tuple(dict.fromkeys(name for names, _ in ties for name in names)),
    )


def _find_tie(records: Mapping[str, RunRecord]) -> tuple[list[str], str] | None:
    """The best run with those that cannot be told from it, and their values; None: it is clear.

    By the first of `COMPARED_METRICS` that two runs have on one split.
    """
    from results.comparison import groups  # loads numpy

    metrics = _compared_metrics(records)
    if not metrics:
        return None
    best = max(metrics, key=lambda name: metrics[name].value)
    top = metrics[best]
    names, texts = [best], [f"{best} {top.value:.4f}"]
    for name, metric in metrics.items():
        difference = groups.metric_difference((records[name], metric), (records[best], top), None)
        if name != best and difference.low is not None and not difference.distinguishable:
            names.append(name)
            delta = formats.interval(difference.delta, difference.low, difference.high)
            texts.append(f"{name} {metric.value:.4f} (Δ {delta})")
    if len(names) == 1:
        return None
    return names, f"{top.name}, {top.split}, n = {top.n}: {', '.join(texts)}"


def _compared_metrics(records: Mapping[str, RunRecord]) -> dict[str, MetricRecord]:
    """The metric that the runs are compared by, by name of the run; empty: they share none."""
    for start in COMPARED_METRICS:
        metrics = {
            name: metric
            for name, record in records.items()
            for metric in record.metrics
            if metric.name.startswith(start) and metric.split != "train" and "[" not in metric.name
        }
        if len(metrics) > 1 and len({(m.name, m.split) for m in metrics.values()}) == 1:
            return metrics
    return {}
