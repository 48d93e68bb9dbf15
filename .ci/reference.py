"""The pages of docs/reference, written from the code: settings, files, exit codes.

python .ci/reference.py            writes them
python .ci/reference.py --check    exit code 1 and one line for each page that is out of date
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engines import catalog, gpu_readings, messages
from results.records import schema
from workbench import exit_codes
from workbench.planning import plan, plan_schema, run_matrix, search_space

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs/reference"
NOTE = "Written from the code by `make reference`; do not edit.\n"
RECORD_PARTS = (
    schema.RunRecord, schema.Identity, schema.Environment, schema.GpuInfo, schema.TimingRecord,
    schema.Reading, schema.MemoryUse, schema.MetricRecord, schema.EvaluationRecord,
    schema.EpochRecord, schema.StageRecord, schema.ForecastRecord, schema.MemoryEstimateRecord,
    schema.ArtifactRecord, schema.Exit, schema.TrialRecord,
)  # fmt: skip
PLAN_PARTS = (
    plan.SuitePlan, run_matrix.RunBlock, run_matrix.Variant, run_matrix.Override,
    run_matrix.Exclusion, search_space.SearchPlan, search_space.SearchRange,
)  # fmt: skip
PLAN_TITLES = {
    "SuitePlan": "The plan", "RunBlock": "`[[run]]`", "Variant": "`[[variant]]`",
    "Override": "`[[override]]`", "Exclusion": "`[[exclude]]`",
    "SearchPlan": "`[search]`", "SearchRange": "`[search.ranges]`",
}  # fmt: skip


def main(arguments: list[str]) -> int:
    """Entry point."""
    pages = {
        "settings.md": settings_page(), "plans.md": plans_page(), "files.md": files_page(),
        "exit-codes.md": exit_codes_page(),
    }  # fmt: skip
    if arguments == ["--check"]:
        stale = [
            name for name, text in pages.items()
            if not (FOLDER / name).is_file() or (FOLDER / name).read_text("utf-8") != text
        ]  # fmt: skip
        for name in stale:
            print(f"docs/reference/{name} is out of date; run `make reference` and commit it")
        return min(len(stale), 1)
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages.items():
        (FOLDER / name).write_text(text, "utf-8")
    return 0


def settings_page() -> str:
    """Every setting of every engine, in the order of its form."""
    parts = [
        f"# Settings\n\n{NOTE}\nIn a plan under `[settings]`, on the command line as "
        "`--set NAME=VALUE`. The entry of a model may have other defaults; "
        "`workbench plan --explain` says which hold."
    ]
    for name in catalog.names():
        engine = catalog.load(name)
        table = engine.Params.model_json_schema()
        rows = _rows(table["properties"], table)
        heading = ("setting", "value", "default", "")
        tasks = ", ".join(engine.TASKS)
        parts.append(f"## {name}\n\n{engine.SUMMARY}. Tasks: {tasks}.\n\n{_table(heading, rows)}")
        for inner, definition in table.get("$defs", {}).items():
            title = "`[[stage]]`" if inner == "CaptionStage" else inner
            rows = _rows(definition["properties"], table)
            parts.append(f"### {title}\n\n{_table(heading, rows)}")
    return "\n\n".join(parts) + "\n"


def _rows(properties: dict[str, Any], root: dict[str, Any]) -> list[tuple[str, ...]]:
    """Name, kind, default and description of each property that has no newer name."""
    return [
        (f"`{key}`", _kind(value, root), _default(value), value.get("description", ""))
        for key, value in properties.items()
        if not value.get("deprecated")
    ]


def plans_page() -> str:
    """Every key of a plan."""
    parts = [f"# Plans\n\n{NOTE}\n`workbench plan --schema` prints the same as a JSON schema."]
    definitions = plan_schema.build_schema()
    for part in PLAN_PARTS:
        table = definitions if part is plan.SuitePlan else definitions["$defs"][part.__name__]
        rows = _rows(table["properties"], definitions)
        body = _table(("key", "value", "default", ""), rows)
        parts.append(f"## {PLAN_TITLES[part.__name__]}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def files_page() -> str:
    """Fields of records and of journals."""
    parts = [
        f"# Files\n\n{NOTE}\nTimes are seconds, sizes bytes, shares 0 to 1, unless a line says "
        "otherwise; what each time is: [how things are measured](../measuring.md). Unknown fields "
        "of later versions are kept.",
        f"## results.jsonl\n\nOne `RunRecord` a line, schema {schema.SCHEMA}. A number that was "
        "not measured is a `Reading` without a value and with a reason.",
        *map(_model, RECORD_PARTS),
        f"## events.jsonl\n\nOne message a line, protocol {messages.PROTOCOL}; `kind` says "
        "which. From the engine, but for `attempt`, `sample` and `end`, which are the warden's.",
        *map(_model, _messages()),
    ]
    return "\n\n".join(parts) + "\n"


def _messages() -> list[type[BaseModel]]:
    """The kinds of messages in the order of their module, and what they hold."""
    models = [
        part for part in vars(messages).values()
        if inspect.isclass(part) and issubclass(part, BaseModel)
    ]  # fmt: skip
    bases = (messages.Message, messages.Unknown)
    homes = (messages.__name__, gpu_readings.__name__)
    return [m for m in models if m.__module__ in homes and m not in bases]


def exit_codes_page() -> str:
    """Exit codes with their meaning."""
    body = ast.parse(inspect.getsource(exit_codes.ExitCode)).body[0].body  # type: ignore[attr-defined]
    rows = []
    for statement, text in itertools.pairwise(body):
        match statement, text:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=code)),
                ast.Expr(value=ast.Constant(value=str(doc))),
            ):
                rows.append((str(code), f"`{name}`", " ".join(doc.split())))
    table = _table(("code", "name", "meaning"), rows)
    intro = f"{NOTE}\nOf every command of `workbench`; an interface for CI."
    return f"# Exit codes\n\n{intro}\n\n{table}\n"


def _model(part: type[BaseModel]) -> str:
    """Heading, first line of the docstring, and the fields of a model."""
    docs, table = plan_schema.field_docs(part), part.model_json_schema()
    rows = [
        (f"`{key}`", _kind(value, table), docs.get(name, ""))
        for (key, value), name in zip(table["properties"].items(), part.model_fields, strict=True)
    ]
    summary = " ".join((inspect.getdoc(part) or "").split("\n\n")[0].split())
    return f"### {part.__name__}\n\n{summary}\n\n{_table(('field', 'value', ''), rows)}"


def _kind(value: dict[str, Any], root: dict[str, Any]) -> str:
    """The type of a value with its limits, in few words."""
    if "$ref" in value:
        return str(value["$ref"]).rpartition("/")[2]
    if "const" in value or "enum" in value:
        return ", ".join(f"`{v}`" for v in value.get("enum", [value.get("const")]))
    if options := value.get("anyOf") or value.get("oneOf"):
        kinds = [_kind(option, root) for option in options if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if value.get("type") == "array":
        items = value.get("items") or {}
        return f"list of {_kind(items, root)}" if items else "list"
    if value.get("type") == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"table of {_kind(value['additionalProperties'], root)}"
    names = {
        "string": "text",
        "object": "table",
        "boolean": "true, false",
        "integer": "whole number",
    }
    text = names.get(value.get("type", ""), value.get("type", "any"))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[key]:g}" for key, sign in signs.items() if key in value]
    return f"{text} {', '.join(limits)}".strip()


def _default(value: dict[str, Any]) -> str:
    if value.get("default") in (None, [], {}):
        return ""
    return f"`{json.dumps(value['default'], ensure_ascii=False)}`"


def _table(heading: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heading, ("---",) * len(heading), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
