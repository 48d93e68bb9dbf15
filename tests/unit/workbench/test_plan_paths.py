"""Paths in plans are absolute, and text settings stay text."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from workbench import plan, plan_settings, suite


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    return tmp_path


def parse(**settings: object) -> plan.SuitePlan:
    return plan.parse({"subsets": ["a"], "models": ["b"], "settings": settings})


@pytest.mark.parametrize(
    ("name", "typed", "resolved"),
    [
        ("data_root", "data", "{here}/data"),
        ("data_root", "./data/../other", "{here}/data/../other"),
        ("data_root", "~/data", "/home/someone/data"),
        ("data_root", "/data", "/data"),
        ("data_root", "", ""),
        ("image_root", "pics", "{here}/pics"),
        ("image_root", "oven=a,evqa=~/b, /c", "oven={here}/a,evqa=/home/someone/b,/c"),
        ("image_root", "a=b/c=d", "a={here}/b/c=d"),
        ("image_root", "x/a=b", "{here}/x/a=b"),
        ("sample_submission", "s.csv", "{here}/s.csv"),
        ("siglip", "path:judge", "path:{here}/judge"),
        ("siglip", "siglip2-base", "siglip2-base"),
        ("prompt", "data", "data"),
    ],
)
def test_a_path_setting_is_absolute(folder: Path, name: str, typed: str, resolved: str) -> None:
    assert parse(**{name: typed}).settings[name] == resolved.format(here=folder)


def test_paths_in_variants_overrides_and_models_are_absolute(folder: Path) -> None:
    table = {
        "subsets": ["a"],
        "models": ["path:m", "clip-nano"],
        "variant": [{"label": "x", "settings": {"data_root": "d"}}],
        "override": [{"model": "path:m", "settings": {"image_root": "i"}}],
    }
    parsed = plan.parse(table)
    assert parsed.models == (f"path:{folder}/m", "clip-nano")
    assert parsed.variants[0].settings == {"data_root": f"{folder}/d"}
    assert parsed.overrides[0].settings == {"image_root": f"{folder}/i"}
    assert parsed.overrides[0].model == f"path:{folder}/m"
    assert plan.parse(tomllib.loads(plan.dump(parsed))) == parsed


@pytest.mark.parametrize("value", ["2024", "2026-11-29", "1.50", "true", "1e3", "a,b", "[x]"])
def test_a_text_setting_stays_as_typed(value: str) -> None:
    assert plan_settings.read_setting(f"data_root={value}") == ("data_root", value)


def test_other_settings_are_still_read_as_toml() -> None:
    assert plan_settings.read_setting("batch=8") == ("batch", 8)
    assert plan_settings.read_setting("layers=3,7,11") == ("layers", [3, 7, 11])
    assert plan_settings.read_setting('data_root="a b"') == ("data_root", "a b")


def test_the_newest_suite_is_the_one_created_last_whatever_its_name_says(tmp_path: Path) -> None:
    for name, seconds in (("20261129-090000-seoul", 100.0), ("20261129-000000-utc", 200.0)):
        (tmp_path / name / "runs").mkdir(parents=True)
        (tmp_path / name / "plan.toml").write_text("")
        os.utime(tmp_path / name / "plan.toml", (seconds, seconds))
    assert [s.name for s in suite.suites(tmp_path)] == [
        "20261129-000000-utc",
        "20261129-090000-seoul",
    ]
    assert suite.find(tmp_path, None).name == "20261129-000000-utc"
