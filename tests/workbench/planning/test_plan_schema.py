"""The JSON schema of plans knows every key of every shipped plan, and every setting."""

from __future__ import annotations

from typing import Any

import pytest

from datasets_mm import strict_toml
from engines import catalog
from workbench.planning import plan, plan_schema

SCHEMA = plan_schema.build_schema()


def unknown_keys(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """Key paths of a plan that the schema does not allow, by its `properties` alone."""
    while "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if "properties" not in schema and "anyOf" in schema and isinstance(value, dict | list):
        return min((unknown_keys(value, option, path) for option in schema["anyOf"]), key=len)
    if isinstance(value, list):
        items = [(f"{path}[{at}]", item) for at, item in enumerate(value)]
        return [k for p, item in items for k in unknown_keys(item, schema.get("items", {}), p)]
    if not isinstance(value, dict):
        return []
    known = schema.get("properties", {})
    rest = schema.get("additionalProperties", True)
    found = []
    for key, inner in value.items():
        if key not in known and rest is False:
            found.append(f"{path}.{key}")
        inner_schema = known.get(key, rest if isinstance(rest, dict) else {})
        found += unknown_keys(inner, inner_schema, f"{path}.{key}")
    return found


@pytest.mark.parametrize("name", plan.preset_files())
def test_every_key_of_a_preset_is_in_the_schema(name: str) -> None:
    table = strict_toml.read_table(plan.preset_files()[name])
    assert unknown_keys(table, SCHEMA) == []
    wrong = {**table, "modles": [], "settings": {**table.get("settings", {}), "epoch": 1}}
    assert set(unknown_keys(wrong, SCHEMA)) == {".modles", ".settings.epoch"}


@pytest.mark.parametrize("engine", catalog.names())
def test_every_setting_has_its_description_limits_and_defaults(engine: str) -> None:
    settings = SCHEMA["$defs"]["Settings"]["properties"]
    for name in catalog.load(engine).Params.model_fields:
        assert engine in settings[name]["description"].rpartition("Defaults: ")[2], name
    assert settings["workers"]["deprecated"]
    assert (settings["lr"]["exclusiveMinimum"], settings["lr"]["exclusiveMaximum"]) == (0, 1)


def test_every_key_of_a_plan_is_described() -> None:
    tables = [SCHEMA, *(SCHEMA["$defs"][name] for name in ("RunBlock", "Variant", "Override"))]
    for table in tables:
        for name, entry in table["properties"].items():
            assert entry.get("description"), name
