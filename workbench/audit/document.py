"""The document of the audit's rules: `python -m workbench.audit.document` prints docs/audit.md."""

from __future__ import annotations

import sys
from typing import Any, Final

from workbench.audit.experiments import EXPERIMENTS, STEPS
from workbench.audit.rules import RULES, read_texts

HEAD: Final = """# Audit

`workbench audit` judges a plan before it runs, and a suite or a run by its records, by {count}
rules. Each names a fault, its evidence in numbers and the remedy:

    workbench audit plan.toml                   # or -p PRESET, or -d SUBSET -m MODEL
    workbench audit -p audit-vqa --rows 3887    # where the data are not here
    workbench audit SUITE                       # or the id or label of a run
    workbench audit -p siglip-study --all       # the rules without a fault, too
    workbench audit SUITE --lang ko --markdown  # or --json

Exit code 1: there is an error or a warning. `workbench run` prints errors and warnings before it
starts, and a report has them all under "Audit"; `workbench report … --kind audit` is a report of
them. A plan refuses to start on faults of given rules:

```toml
refuse_on = ["reported-split", "generation-too-short"]    # or --refuse-on RULE
```

**Severity.** error: numbers are wrong, or a run fails; warning: they mislead, or time is lost;
note: to know. **Standing** of a rule without a fault: no fault; cannot occur (the engine cannot
have the fault; the second table says why); not judged (the evidence is not there: no completed run,
a subset that is not built).

Before a run, rules read its settings, the rows of its subset, and of a built one the lengths of its
captions (by the tokenizers of model and judge where these are here, else a lower bound of 6 bytes a
token) and the contents of up to 200 media. After it they read its record, the learning rates in its
journal, its validations between epochs and the header of its trained model's file. A suite is
judged anew for every report; nothing of it is stored.

| rule | severity | fault | what is compared |
|---|---|---|---|
"""
EXPERIMENTS_HEAD: Final = """
## Experiments

    workbench experiment RUN                    # what is possible, what its faults ask for first

A small bounded run tells whether a suspected fault is one: `workbench experiment RUN
loader-threads` makes a suite of it, waits, and notes the finding on the run (`--detach`: it returns
at once, and the finding comes later; `E` on the Live screen does that). Sides that train are cost
probes of {steps} timed steps (`--steps`), equal but for one setting; where steps are judged, by
their intervals.

| experiment | what is changed | question | asked for by rules and notices |
|---|---|---|---|
"""
IMPOSSIBLE: Final = """
## What the engines cannot do

| rule | why |
|---|---|
"""
TAIL: Final = """
To add a rule: a function in `workbench/audit/rules_*.py` that gives a `Fault`, `Impossible`,
`Unjudged` or None; a row of `RULES` in `rules.py`; its texts in `rules.toml`; a planted and a clean
case in `tests/workbench/audit/test_rules.py`; then
`python -m workbench.audit.document > docs/audit.md`.
"""


def render_document() -> str:
    """docs/audit.md."""
    texts: dict[str, Any] = read_texts()
    rows = [
        f"| `{rule.code}` | {rule.severity} | {texts[rule.code]['title']['en']} | "
        f"{texts[rule.code]['check']['en']} |\n"
        for rule in RULES
    ]
    impossible = [
        f"| `{rule.code}` | {text['en']} |\n"
        for rule in RULES
        if (text := texts[rule.code].get("impossible"))
    ]
    head = HEAD.format(count=len(RULES))
    experiments = [
        f"| `{each.code}` | {each.change} | {each.answers} | "
        f"{', '.join(f'`{code}`' for code in sorted(each.asked_by))} |\n"
        for each in EXPERIMENTS
    ]
    head_of_experiments = EXPERIMENTS_HEAD.format(steps=STEPS)
    return "".join([head, *rows, head_of_experiments, *experiments, IMPOSSIBLE, *impossible, TAIL])


if __name__ == "__main__":
    sys.stdout.write(render_document())
