"""JSON schema of plan files, for editors (Taplo, VS Code) and for checks outside this project.

Generated from the models that read a plan, so that it names each key and setting of this version.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
import threading
from collections.abc import Iterable
from typing import Any, Final

from pydantic import BaseModel

from engines import catalog
from results.text import renamed_words
from workbench.planning.plan import SuitePlan
from workbench.planning.run_matrix import Exclusion, Override, RunBlock, Variant
from workbench.planning.search_space import SearchPlan, SearchRange

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
FILE_NAME: Final = "plan.schema.json"
"""Name beside a plan, as its `#:schema` line has it."""
PARTS: Final[tuple[type[BaseModel], ...]] = (
    SuitePlan, RunBlock, Variant, Override, Exclusion, SearchPlan, SearchRange,
)  # fmt: skip
PARSING: Final = threading.Lock()
"""Python 3.11 counts the depth of a syntax tree over all threads, and fails where two parse."""
SETTINGS_REFERENCE: Final = {"$ref": "#/$defs/Settings"}


def render_schema() -> str:
    """The schema as JSON text."""
    return json.dumps(build_schema(), indent=1, ensure_ascii=False) + "\n"


def build_schema() -> dict[str, Any]:
    """The schema of a plan; `$defs.Settings` has the settings of all engines."""
    schema: dict[str, Any] = SuitePlan.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for part in PARTS:
        table = schema if part is SuitePlan else definitions[part.__name__]
        docs = field_docs(part)
        for name, field in part.model_fields.items():
            _describe(table["properties"][field.alias or name], docs.get(name, ""))
        if "settings" in table["properties"]:
            table["properties"]["settings"] = {
                **SETTINGS_REFERENCE, "description": "Settings of the engine, by name",
            }  # fmt: skip
            table["properties"]["stage"] = _stage_property()
    definitions["Settings"] = _settings_table(definitions)
    _complete_plan(schema)
    range_table = {"anyOf": [{"type": "array"}, {"$ref": "#/$defs/SearchRange"}]}
    definitions["SearchPlan"]["properties"]["ranges"]["additionalProperties"] = range_table
    return {"$schema": DIALECT, **schema, "title": "Plan of a suite of the workbench"}


def _complete_plan(schema: dict[str, Any]) -> None:
    """What validators of the plan allow beyond the types of its fields."""
    properties = schema["properties"]
    engine_names = {"type": "string", "enum": catalog.names()}
    for table in (schema, schema["$defs"]["RunBlock"]):
        table["properties"]["engine"]["anyOf"] = [
            engine_names, {"type": "array", "items": engine_names},
        ]  # fmt: skip
    for name in ("Override", "Exclusion"):
        schema["$defs"][name]["properties"]["engine"]["anyOf"] = [engine_names]
    properties["max_uncertainty"]["anyOf"] = [{"type": "string"}, {"type": "number"}]
    for earlier, name in renamed_words.PLAN_KEYS.items():
        properties[earlier] = {**properties[name], "deprecated": True}
    schema.pop("required")
    schema["anyOf"] = [{"required": ["subsets", "models"]}, {"required": ["run"]}]


def _describe(table: dict[str, Any], text: str) -> None:
    """Add the description; the titles that pydantic makes repeat the key."""
    table.pop("title", None)
    if text:
        table["description"] = text


def _stage_property() -> dict[str, Any]:
    return {
        "type": "array", "items": {"$ref": "#/$defs/CaptionStage"},
        "description": "Stages of a captioning training, one after the other",
    }  # fmt: skip


def _settings_table(definitions: dict[str, Any]) -> dict[str, Any]:
    """Every setting of every engine; the description names its engines and their defaults."""
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for engine in catalog.names():
        schema = catalog.load(engine).Params.model_json_schema()
        definitions.update(schema.get("$defs", {}))
        for name, table in schema["properties"].items():
            tables.setdefault(name, {})[engine] = table
    properties = {name: _setting(by_engine) for name, by_engine in sorted(tables.items())}
    for earlier, name in renamed_words.SETTINGS.items():
        properties[earlier] = {**properties[name], "deprecated": True}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _setting(by_engine: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """One setting that one or several engines have."""
    described = (table["description"] for table in by_engine.values() if "description" in table)
    defaults = [
        f"{engine} {json.dumps(table['default'], ensure_ascii=False)}"
        for engine, table in by_engine.items()
        if "default" in table
    ]
    kinds = _distinct(
        {k: v for k, v in table.items() if k not in ("title", "description", "default")}
        for table in by_engine.values()
    )
    kind = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return {**kind, "description": f"{next(described, '')}. Defaults: {', '.join(defaults)}"}


def _distinct(tables: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(table, sort_keys=True): table for table in tables}.values())


def field_docs(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings below the fields of a model and of its bases, on one line, by field."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not (issubclass(base, BaseModel) and base is not BaseModel):
            continue
        with PARSING:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        statements = body.body if isinstance(body, ast.ClassDef) else []
        for field, text in itertools.pairwise(statements):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(doc))),
                ):
                    docs[name] = " ".join(doc.split())
    described = {n: f.description for n, f in model.model_fields.items() if f.description}
    return docs | described
