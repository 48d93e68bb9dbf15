"""The audit of a plan, and the refusal to start it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from datasets_mm.strict_toml import suggest_nearest
from engines.protocol import RunSpec
from results.records.suite_view import AuditRow
from workbench.audit import collect
from workbench.audit.rules import RULES, audit_runs
from workbench.planning.plan import PlanError, SuitePlan

LANG: Final = "en"
"""Language of messages before a start."""


def audit_plan(
    plan: SuitePlan, specs: Sequence[RunSpec], device: object = None, rows: int | None = None
) -> list[AuditRow]:
    """The audit of a plan's runs. `device`: as `memory_check.locate_device` gives it; `rows`: of
    its subsets, where they are not built.
    """
    reasons = collect.collect_reasons(plan)
    return audit_runs(collect.collect_from_specs(specs, device, reasons, rows))


def check_start(plan: SuitePlan, specs: Sequence[RunSpec], device: object) -> list[str]:
    """The faults of a plan as lines, without notes; the last line names unjudged refusals.

    Raises:
        PlanError: the plan refuses to start on a fault that is there, or on an unknown rule.
    """
    if problems := find_unknown_codes(plan.refuse_on):
        raise PlanError(problems)
    rows = audit_plan(plan, specs, device)
    faults = [row for row in rows if row.standing == "fault"]
    refused = [row for row in faults if row.code in plan.refuse_on]
    if refused:
        raise PlanError([f"refused by refuse_on: {describe_fault(row)}" for row in refused])
    lines = [describe_fault(row) for row in faults if row.severity != "note"]
    unjudged = [
        f"{row.code} ({row.evidence[LANG]})"
        for row in rows if row.standing == "unjudged" and row.code in plan.refuse_on
    ]  # fmt: skip
    return lines + [f"audit: refuse_on names what could not be judged: {u}" for u in unjudged]


def find_unknown_codes(codes: Sequence[str]) -> list[str]:
    """A sentence for each code that no rule has."""
    rule_codes = [rule.code for rule in RULES]
    return [
        f"refuse_on: no audit rule '{code}'{suggest_nearest(code, rule_codes)}"
        for code in codes
        if code not in rule_codes
    ]


def describe_fault(row: AuditRow) -> str:
    """A fault as one line: severity, code, title, evidence, runs, remedy."""
    runs = f" ({', '.join(row.runs)})" if row.runs else ""
    text = f"{row.title[LANG]}: {row.evidence[LANG]}{runs}. {row.remedy[LANG]}"
    return f"audit, {row.severity} {row.code}: {text}"
