"""Text of a new plan with comments, as `workbench init` writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from engines import catalog
from workbench.planning.plan_schema import FILE_NAME, field_docs

SHOWN_SETTINGS: Final = (
    "epochs", "batch", "lr", "precision", "early_stopping", "evaluate_on",
)  # fmt: skip
"""Settings that a new plan names even where it leaves them alone, as comments."""
WIDTH: Final = 34
"""Column of the comments."""


class PlanAnswers(NamedTuple):
    """What a person wants to run."""

    name: str
    engine: str
    subsets: Sequence[str]
    models: Sequence[str]
    seeds: Sequence[int] = (42,)
    gpu: str = ""
    """GPU that memory is estimated for; empty: this machine's."""
    cpu: bool = False
    settings: Mapping[str, Any] = {}
    variants: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """Label and settings of each variant."""


def render_plan(answers: PlanAnswers) -> str:
    """The plan as TOML with comments."""
    lines = [
        f"#:schema ./{FILE_NAME}",
        "# In words: workbench plan PLAN --explain. Every list is one factor of a product:",
        "# each subset is trained with each model, each seed and each variant.",
        "schema = 1",
        _entry("name", answers.name, "of the suite, in its folder and its tables"),
        _entry("engine", answers.engine, ", ".join(catalog.names()[:3])),
        _entry("subsets", list(answers.subsets), "workbench data list"),
        _entry("models", list(answers.models), "workbench models"),
        _entry("seeds", list(answers.seeds), "three seeds tell a difference from chance"),
        *_device_lines(answers),
        '# title = "Week 12"               # for the report; goal, why, expected, criteria, too',
        "",
        "[settings]                        # commented lines: the engine's defaults, of which the",
        "                                  # entry of a model may have others",
        *_setting_lines(answers),
    ]
    for label, settings in answers.variants:
        lines += ["", "[[variant]]", _entry("label", label, "its name in tables")]
        lines.append(f"settings = {_inline_table(settings)}")
    return "\n".join(lines) + "\n"


def _device_lines(answers: PlanAnswers) -> list[str]:
    if answers.cpu:
        return [_entry("cpu", True, "no GPU, whatever is here")]
    lines = ["# devices = [0]                   # GPU indexes; default: those that the shell shows"]
    if answers.gpu:
        lines.append(_entry("gpu", answers.gpu, "memory is estimated for this GPU"))
    return lines


def _setting_lines(answers: PlanAnswers) -> list[str]:
    """The chosen settings, then the usual ones as comments with their defaults."""
    params = catalog.load(answers.engine).Params
    docs, defaults = field_docs(params), params().model_dump(mode="json")
    lines = [_entry(key, value, _brief(docs, key)) for key, value in answers.settings.items()]
    for key in SHOWN_SETTINGS:
        if key in defaults and key not in answers.settings:
            unset = defaults[key] is None  # `[]` would turn off what an unset list leaves on
            value = '["SUBSET"]' if unset else _toml(defaults[key])
            comment = docs[key] if unset else _brief(docs, key)
            lines.append(f"{f'# {key} = {value}':<{WIDTH - 1}} # {comment}")
    return lines


def _brief(docs: Mapping[str, str], key: str) -> str:
    """The description of a setting up to its first semicolon."""
    return docs.get(key, "").partition(";")[0]


def _entry(key: str, value: Any, comment: str) -> str:
    line = f"{key} = {_toml(value)}"
    return f"{line:<{WIDTH - 1}} # {comment}" if comment else line


def _inline_table(settings: Mapping[str, Any]) -> str:
    pairs = [f"{key} = {_toml(value)}" for key, value in settings.items()]
    return f"{{ {', '.join(pairs)} }}"


def _toml(value: Any) -> str:
    """A value of TOML: what JSON writes, for texts, numbers, booleans and lists of them."""
    return json.dumps(value, ensure_ascii=False)
