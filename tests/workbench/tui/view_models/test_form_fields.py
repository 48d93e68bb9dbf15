"""Fields of the settings form: kinds, reading, writing, defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, Field

from engines.param_sections import AutoBool, Workers
from workbench.planning import plan
from workbench.planning.run_matrix import Devices
from workbench.tui.view_models import form_fields
from workbench.tui.view_models.catalog import read_catalogs
from workbench.tui.view_models.plan_draft import draft_from_table


class Params(BaseModel):
    """One field of every kind."""

    epochs: int = Field(1, ge=1, le=64, description="Times over the data")
    lr: float = Field(2e-5, gt=0, description="Learning rate")
    tf32: bool = True
    precision: Literal["bf16", "fp32"] = "bf16"
    layers: tuple[int, ...] = (3, 7, 11)
    devices: Devices = ()
    data_root: str | None = None
    max_steps: int | None = Field(None, ge=1)
    num_workers: Workers = "auto"
    pin_memory: AutoBool = "auto"


FORM = {s.name: s for s in form_fields.settings_of_schema(Params.model_json_schema())}


def test_every_kind_of_field_is_known() -> None:
    assert {name: s.kind for name, s in FORM.items()} == {
        "epochs": "integer", "lr": "number", "tf32": "switch", "precision": "choice",
        "layers": "list", "devices": "list", "data_root": "text", "max_steps": "integer",
        "num_workers": "integer", "pin_memory": "switch",
    }  # fmt: skip
    assert FORM["epochs"].limits == "1 to 64"
    assert FORM["lr"].limits == "> 0"
    assert FORM["precision"].choices == ("bf16", "fp32")
    assert FORM["layers"].item == "integer"
    assert FORM["data_root"].optional
    assert FORM["max_steps"].low == 1


@pytest.mark.parametrize(
    ("name", "typed", "value"),
    [
        ("epochs", "3", 3), ("lr", "1e-4", 1e-4), ("layers", "2, 5,8", [2, 5, 8]),
        ("layers", "", []), ("devices", "0, GPU-5d", ["0", "GPU-5d"]),
        ("data_root", "", None), ("data_root", "/x y", "/x y"),
        ("max_steps", "", None), ("max_steps", "1_000", 1000), ("num_workers", "auto", "auto"),
        ("num_workers", "4", 4), ("pin_memory", "auto", "auto"), ("pin_memory", "on", True),
    ],
)  # fmt: skip
def test_reading_what_was_typed(name: str, typed: str, value: object) -> None:
    assert form_fields.parse_value(FORM[name], typed) == value


@pytest.mark.parametrize(
    ("name", "typed", "sentence"),
    [
        ("epochs", "two", "epochs: 'two' is not a whole number"),
        ("epochs", "1.5", "epochs: '1.5' is not a whole number"),
        ("epochs", "65", "epochs: 65 is not 1 to 64"),
        ("lr", "0", "lr: 0 is not > 0"),
        ("lr", "nan", "lr: nan is not > 0"),
        ("layers", "3, x", "layers: 'x' is not a whole number"),
        ("num_workers", "automatic", "num_workers: 'automatic' is not a whole number"),
        ("num_workers", "65", "num_workers: 65 is not 0 to 64"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, typed: str, sentence: str) -> None:
    with pytest.raises(form_fields.SettingError, match="^" + sentence.replace("(", r"\(") + "$"):
        form_fields.parse_value(FORM[name], typed)


@pytest.mark.parametrize("setting", FORM.values(), ids=list(FORM))
def test_writing_and_reading_a_default_gives_it_back(setting: form_fields.Setting) -> None:
    value = form_fields.parse_value(setting, form_fields.format_value(setting.default))
    assert form_fields.is_default_value(setting, value)


def test_a_switch_with_a_word_turns_through_all_three() -> None:
    seen = ["auto"]
    for _ in range(3):
        seen.append(form_fields.next_value(FORM["pin_memory"], seen[-1]))
    assert seen == ["auto", True, False, "auto"]
    assert form_fields.next_value(FORM["tf32"], True) is False
    assert form_fields.next_value(FORM["tf32"], False) is True


def test_a_one_is_not_the_switch_true() -> None:
    assert not form_fields.is_default_value(FORM["tf32"], 1)


def test_lanes_are_typed_as_on_the_command_line(tmp_path: Path) -> None:
    lanes = {setting.name: setting for setting in read_catalogs(tmp_path, tmp_path).suite}["lanes"]
    run = {"engine": "probe", "subsets": ["none"], "models": ["none"]}
    for typed, choice in (("all", "all"), ("4", 4), ("0,1,3", (0, 1, 3)), ("3,", (3,))):
        chosen = {**run, "lanes": form_fields.parse_value(lanes, typed)}
        assert plan.parse(draft_from_table(chosen, ("lanes",)).table()).lanes == choice
