"""The table of renamed words, in every parser and reader that takes an earlier one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engines import catalog, model_catalog, protocol
from results.text import renamed_words
from results.text.renamed_words import RenamedWordWarning
from workbench.cli import renamed_options, set_options
from workbench.planning import expand, plan
from workbench.suites import control, trials
from workbench.suites.warden_file import WardenFile

ROOT = Path(__file__).resolve().parents[3]
MODELS = {"retrieval": "clip-nano", "captioning": "nano-captioner", "vqa": "nano-qwen-vl"}
SUBSETS = {"retrieval": "emoji_train", "captioning": "emoji_caption_train", "vqa": "easy_vqa_train"}
PARAMS = {name: catalog.load(name).Params.model_fields for name in MODELS}
NAMES = [
    (engine, earlier, name)
    for engine, fields in PARAMS.items()
    for earlier, name in renamed_words.SETTINGS.items()
    if name in fields
]


def test_no_engine_has_an_earlier_name_and_every_name_is_a_setting() -> None:
    settings = {name for fields in PARAMS.values() for name in fields}
    assert not settings & renamed_words.SETTINGS.keys()
    assert set(renamed_words.SETTINGS.values()) <= settings
    assert set(renamed_words.PLAN_KEYS.values()) <= plan.SuitePlan.model_fields.keys()


@pytest.mark.parametrize(("engine", "earlier", "name"), NAMES)
def test_a_plan_with_an_earlier_name_is_the_plan_with_the_name(
    engine: str, earlier: str, name: str
) -> None:
    value = PARAMS[engine][name].default
    base = {"engine": engine, "subsets": SUBSETS[engine], "models": MODELS[engine]}

    def make(key: str) -> dict[str, Any]:
        settings = {key: value}
        return base | {
            "settings": settings,
            "run": [{"label": "a", "settings": settings}],
            "variant": [{"label": "b", "settings": settings}],
            "override": [{"settings": settings}],
            "search": {"metric": "loss", "ranges": {key: [value]}},
        }

    with pytest.warns(RenamedWordWarning, match=f"'{earlier}' is now called '{name}'"):
        read = plan.parse(make(earlier))
    assert read == plan.parse(make(name))
    with pytest.raises(plan.PlanError, match=f"leave out '{earlier}'"):
        plan.parse(base | {"settings": {earlier: value, name: value}})


def test_set_options_take_an_earlier_name_as_its_setting_is_read() -> None:
    with pytest.warns(RenamedWordWarning, match="'workers'"):
        assert set_options.parse_settings(["workers=auto"]) == {"num_workers": "auto"}
    with pytest.raises(plan.PlanError, match="--range: 'workers' and 'num_workers' are"):
        set_options.join_settings({"workers": 1, "num_workers": 2}.items(), "--range")


def test_options_keep_their_values() -> None:
    with pytest.warns(RenamedWordWarning):
        words = renamed_options.rename_options(["--until=2%", "--until", "±2%", "--anyway", "x"])
    assert words == ["--max-uncertainty=2%", "--max-uncertainty", "±2%", "--force", "x"]


def test_until_a_duration_is_a_time_limit() -> None:
    words = ["--until", "11h30m", "--until=90m"]
    assert renamed_options.rename_options(words) == words


def test_a_model_entry_of_a_person_may_have_earlier_names() -> None:
    table = {"name": "mine", "family": "clip", "settings": {"max_tokens": 8}}
    with pytest.warns(RenamedWordWarning):
        assert model_catalog.ModelEntry.model_validate(table).settings == {"max_length": 8}


def test_an_unknown_setting_near_an_earlier_name_suggests_the_name(tmp_path: Path) -> None:
    wrong = {"subsets": "emoji_train", "models": "clip-nano", "settings": {"workrs": 2}}
    with pytest.raises(plan.PlanError, match="did you mean 'num_workers'"):
        expand.expand(plan.parse(wrong), tmp_path)


def test_stored_files_with_earlier_names_are_read_without_a_warning() -> None:
    spec = protocol.RunSpec.model_validate_json(
        json.dumps({
            "suite": "s", "run_id": "r", "engine": "vqa", "subset": "a", "model": "m",
            "cache_root": "/c", "params": {"predict_batch": 2, "lr": 1e-4},
            "trial": {"number": 1, "settings": {"workers": 3}},
            "origins": {"accumulation": "rule"}, "probe": {"steps": 9, "until": 0.1},
        })
    )  # fmt: skip
    assert spec.params == {"eval_batch_size": 2, "lr": 1e-4}
    assert spec.trial is not None
    assert spec.trial.settings == {"num_workers": 3}
    assert spec.origins == {"gradient_accumulation_steps": "rule"}
    assert spec.probe == protocol.Probe(steps=9, max_uncertainty=0.1)
    base = {"trials": 2, "searched": ["workers", "lr"], "spec": spec.model_dump(mode="json")}
    assert trials.SearchBase.model_validate(base).searched == ("num_workers", "lr")
    oom = b'{"kind":"oom","step":1,"before":4,"after":2,"params":{"accumulation":2,"batch":2}}'
    assert protocol.decode(oom).params == {"gradient_accumulation_steps": 2, "batch": 2}
    forecast = b'{"kind":"forecast","steps":1,"asked_steps":2,"until":0.02}'
    assert protocol.decode(forecast).max_uncertainty == 0.02
    assert [control.Command(do=word).do for word in ("hold", "continue")] == ["pause", "resume"]
    warden = {"pid": 1, "start_ticks": 1, "host": "h", "token": "t", "state": "holding"}
    assert WardenFile.model_validate(warden).state == "paused"


def test_documents_and_shipped_files_use_no_earlier_name() -> None:
    """Presets and entries are read with warnings as errors by their own tests."""
    options = r"--anyway|--until(?! \d+h)"  # `--until 11h30m` is the time limit
    settings = "|".join(renamed_words.SETTINGS)
    pattern = re.compile(rf"(?:{options})\b|`(?:{settings})`|\b(?:{settings}) ?= ?[\w\"]")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        assert not pattern.findall(path.read_text("utf-8")), path.name
