"""Audit rules about the choice of an epoch, and about comparing runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from results.records.schema import MetricRecord
from results.text import formats
from workbench.audit.finding import NO_TRAINING, Fault, Unjudged, Verdict, decide
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


class ScoredRun(NamedTuple):
    """A run and the metric that it is compared by."""

    run: RunFacts
    metric: MetricRecord


def judge_reported_split(run: RunFacts) -> Verdict:
    """Choice of the epoch: the split that chooses should not be one that is reported."""
    if run.get("monitor") is None:
        return Unjudged("no-monitor")
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
    if any(c.metric == "diversity" for c in run.conditions):
        return None
    return Fault({"monitor": str(run.get("monitor"))})


def judge_final_weights(run: RunFacts) -> Verdict:
    """Final weights: those of the last epoch are reported although another was better."""
    if run.get("monitor") is None:
        return Unjudged("no-monitor")
    if not run.trains:
        return Unjudged(NO_TRAINING)
    if run.keeps_best:
        return None
    if run.completed is None:
        validations = sum(run.validation_counts)
        if not run.get("validate_on") or validations < 2:
            return None
        values = {"validations": str(validations), "split": str(run.get("validate_on"))}
        return Fault(values, form="planned")
    metric = str(run.get("monitor") or "loss")
    history = [entry for entry in run.validations if metric in entry[1]]
    if len(history) < 2:
        return Unjudged("no-validations")
    eligible = [entry for entry in history if all(c.holds(entry[1]) for c in run.conditions)]
    choose = min if metric == "loss" else max
    epoch, metrics = choose(eligible or history[-1:], key=lambda entry: entry[1][metric])
    last_epoch, best, last = history[-1][0], metrics[metric], history[-1][1][metric]
    values = {
        "metric": metric, "epoch": epoch, "best": formats.number(best),
        "last_epoch": last_epoch, "last": formats.number(last),
    }  # fmt: skip
    return decide(values, faulty=abs(best - last) > CLEAR_LOSS * max(abs(best), abs(last)))


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
    peers: dict[tuple[str, int, int, int], list[RunFacts]] = {}
    for run in runs:
        if run.trains and run.completed is not None:
            identity, fold = run.identity, int(run.get("fold") or 0)
            key = (identity.subset, identity.seed, identity.repeat, fold)
            peers.setdefault(key, []).append(run)
    if not any(run.trains for run in runs):
        return Unjudged(NO_TRAINING)
    if all(len(group) < 2 for group in peers.values()):
        return Unjudged("no-pair")
    scored = [entries for group in peers.values() for entries in _scored_peers(group)]
    if all(entry.metric.low is None for entries in scored for entry in entries):
        return Unjudged("no-interval")
    ties = [tie for entries in scored if (tie := _find_tie(entries))]
    if not ties:
        return None
    return Fault(
        {"pairs": "; ".join(text for _, text in ties)},
        runs=tuple(dict.fromkeys(name for names, _ in ties for name in names)),
    )


def _scored_peers(peers: Sequence[RunFacts]) -> list[Sequence[ScoredRun]]:
    """The runs with the metric that they are compared by, split by split."""
    for start in COMPARED_METRICS:
        entries: dict[tuple[str, str], list[ScoredRun]] = {}
        for run in peers:
            for metric in run.record.metrics if run.record else ():
                variant = "[" in metric.name or metric.split == "train"
                if metric.name.startswith(start) and not variant:
                    scored = ScoredRun(run, metric)
                    entries.setdefault((metric.name, metric.split), []).append(scored)
        if shared := [scored for scored in entries.values() if len(scored) > 1]:
            return list(shared)
    return []


def _find_tie(scored: Sequence[ScoredRun]) -> tuple[list[str], str] | None:
    """The best run with those that cannot be told from it, and their values; None: it is clear.

    Paired over the items where both runs kept their scores.
    """
    from results.comparison import groups  # loads numpy

    best = max(scored, key=lambda entry: entry.metric.value)
    names, texts = [best.run.name], [f"{best.run.name} {best.metric.value:.4f}"]
    for entry in scored:
        pair = [(e.run.record, e.metric) for e in (entry, best) if e.run.record is not None]
        difference = groups.metric_difference(pair[0], pair[1], entry.run.log_root)
        if entry is not best and difference.low is not None and not difference.distinguishable:
            names.append(entry.run.name)
            delta = formats.interval(difference.delta, difference.low, difference.high)
            texts.append(f"{entry.run.name} {entry.metric.value:.4f} (Δ {delta})")
    if len(names) == 1:
        return None
    top = best.metric
    return names, f"{top.name}, {top.split}, n = {top.n}: {', '.join(texts)}"
