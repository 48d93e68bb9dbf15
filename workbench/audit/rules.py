"""The list of audit rules, their texts in English and Korean, and the audit of a suite's runs."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from results.records.suite_view import AuditRow
from results.text.particles import KoreanTemplate
from results.text.translations import LANGS
from workbench.audit import (
    rules_captions,
    rules_model,
    rules_schedule,
    rules_selection,
)
from workbench.audit.finding import (
    NO_TRAINING,
    Fault,
    Impossible,
    RunRule,
    Sound,
    SuiteRule,
    Unjudged,
    Verdict,
)
from workbench.audit.run_facts import RunFacts

TEXTS: Final = Path(__file__).parent / "rules.toml"

RULES: Final[tuple[RunRule | SuiteRule, ...]] = (
    RunRule("rate-ends-high", "error", rules_schedule.judge_rate_end),
    RunRule("warmup-too-long", "warning", rules_schedule.judge_warmup),
    RunRule("few-steps", "note", rules_schedule.judge_step_count),
    RunRule("rows-not-covered", "warning", rules_schedule.judge_coverage),
    RunRule("patience-too-long", "note", rules_schedule.judge_patience),
    RunRule("generation-too-short", "warning", rules_captions.judge_generation_length),
    RunRule("captions-truncated", "warning", rules_captions.judge_truncation),
    RunRule("judge-context", "warning", rules_captions.judge_context),
    RunRule("no-end-token", "error", rules_captions.judge_end_token),
    RunRule("padding", "warning", rules_captions.judge_padding),
    RunRule("generation-time", "warning", rules_captions.judge_generation_time),
    RunRule("meteor-tokenizer", "warning", rules_captions.judge_meteor_tokenizer),
    SuiteRule("meteor-rules-mixed", "error", rules_captions.judge_meteor_rules),
    RunRule("mode-collapse", "warning", rules_captions.judge_diversity),
    RunRule("reported-split", "warning", rules_selection.judge_reported_split),
    RunRule("monitor-alone", "warning", rules_selection.judge_monitor),
    RunRule("final-not-best", "warning", rules_selection.judge_final_weights),
    SuiteRule("one-seed", "note", rules_selection.judge_seeds),
    SuiteRule("ranking-uncertain", "note", rules_selection.judge_ranking),
    RunRule("label-alignment", "error", rules_model.judge_label_alignment),
    RunRule("bf16-unsupported", "error", rules_model.judge_bf16),
    RunRule("weights-missing", "error", rules_model.judge_saved_weights),
    RunRule("stated-size", "warning", rules_model.judge_stated_size),
    RunRule("evaluation-mode", "error", rules_model.judge_evaluation_mode),
    RunRule("media-equal", "warning", rules_model.judge_media),
    RunRule("rows-unanswered", "warning", rules_model.judge_answered),
    RunRule("data-bound", "warning", rules_model.judge_data_wait),
)
"""In the order of tables: schedule, captions, choice and comparison, model, data."""

OTHER_ENGINES: Final = frozenset({
    "captioning-only", "vqa-only", "no-generation", "no-inference", "no-monitor", NO_TRAINING,
})  # fmt: skip
"""Reasons of rules that are for another engine or task."""
Text = dict[str, str]
"""A text by language."""


@functools.cache
def read_texts() -> dict[str, Any]:
    """Texts of the rules by code, and under `reason` why a rule judges nothing."""
    return tomllib.loads(TEXTS.read_text("utf-8"))


def audit_runs(runs: Sequence[RunFacts]) -> list[AuditRow]:
    """A row for each fault of the runs, then one for each rule without any, in the rules' order."""
    faults: list[AuditRow] = []
    others: list[AuditRow] = []
    for rule in RULES if runs else ():
        verdicts = _judge(rule, runs)
        rows = list(_fault_rows(rule, verdicts))
        if rows:
            faults += rows
        elif row := _clean_row(rule, [verdict for _, verdict in verdicts]):
            others.append(row)
    order = {"error": 0, "warning": 1, "note": 2}
    return [*sorted(faults, key=lambda row: order[row.severity]), *others]


def _judge(
    rule: RunRule | SuiteRule, runs: Sequence[RunFacts]
) -> list[tuple[tuple[str, ...], Verdict]]:
    """Names of runs, and the verdict about them."""
    if isinstance(rule, SuiteRule):
        verdict = rule.judge(runs)
        return [(verdict.runs if isinstance(verdict, Fault) else (), verdict)]
    return [((run.name,), rule.judge(run)) for run in runs]


def _fault_rows(
    rule: RunRule | SuiteRule, verdicts: Iterable[tuple[tuple[str, ...], Verdict]]
) -> Iterator[AuditRow]:
    """A row for each different evidence, with the runs that share it."""
    names: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for runs, verdict in verdicts:
        if isinstance(verdict, Fault):
            evidence = (verdict.form, tuple(verdict.values.items()))
            names.setdefault(evidence, []).extend(runs)
    texts = read_texts()[rule.code]
    for (form, values), faulty_runs in names.items():
        yield AuditRow(
            code=rule.code, standing="fault", severity=rule.severity,
            runs=tuple(dict.fromkeys(faulty_runs)), title=texts["title"],
            evidence=_fill(texts[form], dict(values)), remedy=_fill(texts["remedy"], dict(values)),
        )  # fmt: skip


def _clean_row(rule: RunRule | SuiteRule, verdicts: Sequence[Verdict]) -> AuditRow | None:
    """The row of a rule that names no fault: clean, impossible, or why it judged nothing; None:
    it is not for the engines of these runs.
    """
    texts, reasons = read_texts()[rule.code], read_texts()["reason"]
    unjudged = [verdict for verdict in verdicts if isinstance(verdict, Unjudged)]
    judged = [verdict for verdict in verdicts if not isinstance(verdict, Unjudged)]
    evidence: Text = {}
    standing: Literal["clean", "impossible", "unjudged"] = "clean"
    if not judged and all(verdict.reason in OTHER_ENGINES for verdict in unjudged):
        return None
    if not judged:
        standing, evidence = "unjudged", reasons[unjudged[0].reason]
    elif all(isinstance(verdict, Impossible) for verdict in judged):
        standing, evidence = "impossible", texts["impossible"]
    else:
        sound = [verdict for verdict in judged if isinstance(verdict, Sound)]
        parts = [_fill(texts[verdict.form], dict(verdict.values)) for verdict in sound[:1]]
        counts = {"judged": str(len(judged)), "runs": str(len(verdicts))}
        parts += [_fill(reasons["partly"], counts)] if unjudged else []
        parts += [_fill(reasons["others"], counts)] if any(v != sound[0] for v in sound) else []
        evidence = {
            lang: {"en": "; ", "ko": ", "}[lang].join(part[lang] for part in parts)
            for lang in LANGS
        }
    return AuditRow(
        code=rule.code, standing=standing, severity=rule.severity, title=texts["title"],
        evidence=evidence,
    )  # fmt: skip


def _fill(text: Text, values: dict[str, str]) -> Text:
    return {"en": text["en"].format(**values), "ko": KoreanTemplate(text["ko"]).format(**values)}
