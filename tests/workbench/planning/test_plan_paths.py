"""Paths in plans are absolute, and text settings stay text."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
import typer
from pydantic import ValidationError

from engines.retrieval import Params
from workbench import paths
from workbench.cli import options, set_options, start
from workbench.planning import plan
from workbench.suites import suite


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
        ("data_root", " /a b ", "/a b"),
        ("data_root", "/data\r", "/data"),
        ("data_root", "$HOME/data", "/home/someone/data"),
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
        "search": {"metric": "siglip", "ranges": {"siglip": ["path:judge", "base"], "lr": [1, 2]}},
    }
    parsed = plan.parse(table)
    assert parsed.models == (f"path:{folder}/m", "clip-nano")
    assert parsed.variants[0].settings == {"data_root": f"{folder}/d"}
    assert parsed.overrides[0].settings == {"image_root": f"{folder}/i"}
    assert parsed.overrides[0].model == f"path:{folder}/m"
    assert parsed.search.ranges["siglip"].choices == (f"path:{folder}/judge", "base")
    assert parsed.search.ranges["lr"].choices == (1, 2)
    assert plan.parse(tomllib.loads(plan.dump(parsed))) == parsed


@pytest.mark.parametrize("value", ["2024", "2026-11-29", "1.50", "true", "1e3", "a,b", "[x]"])
def test_a_text_setting_stays_as_typed(value: str) -> None:
    assert set_options.parse_setting(f"data_root={value}") == ("data_root", value)


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("2024", ["2024"]),
        ("a,b", ["a", "b"]),
        ("a, 2026-11-29,", ["a", "2026-11-29"]),
        ('["a", "b"]', ["a", "b"]),
        ("[]", []),
        ('"a"', "a"),
        ("", None),
    ],
)
def test_a_list_of_text_keeps_its_texts(typed: str, value: object) -> None:
    assert set_options.parse_setting(f"evaluate_on={typed}") == ("evaluate_on", value)


def test_an_empty_value_unsets_what_may_be_unset(folder: Path) -> None:
    (folder / "p.toml").write_text(
        'subsets = ["a"]\nmodels = ["b"]\n[settings]\nmax_steps = 3\nlr = 1e-4\n'
    )
    asked = start.load_plan(folder / "p.toml", None, {}, ["max_steps="])
    assert asked.settings == {"lr": 1e-4}
    assert plan.parse(tomllib.loads(plan.dump(asked))) == asked
    assert set_options.parse_setting("batch=") == ("batch", "")  # refused by its type
    assert set_options.parse_setting("data_root=") == ("data_root", "")


@pytest.mark.parametrize("typed", ["８", "16,5", "1 6", "5%", "1e−4", "none", "ten"])
def test_a_number_that_is_typed_otherwise_is_refused_and_not_guessed(typed: str) -> None:
    _, value = set_options.parse_setting(f"batch={typed}")
    with pytest.raises(ValidationError):
        Params.model_validate({"batch": value})


def test_other_settings_are_still_read_as_toml() -> None:
    assert set_options.parse_setting("batch=8") == ("batch", 8)
    assert set_options.parse_setting("layers=3,7,11") == ("layers", [3, 7, 11])
    assert set_options.parse_setting("layers= 3, 7") == ("layers", [3, 7])
    assert set_options.parse_setting("batch = 0x10") == ("batch", 16)
    assert set_options.parse_setting('data_root="a b"') == ("data_root", "a b")


def test_variables_from_files_that_know_no_shell(folder: Path) -> None:
    variables = {
        "HOME": "/home/someone",
        "WORKBENCH_CACHE": '"/scratch/cache"',
        "WORKBENCH_CONFIG": "config\r",
        "WORKBENCH_LOG_ROOT": " $HOME/logs ",
        "WORKBENCH_LOCKS": "'~/locks'",
        "XDG_CACHE_HOME": "relative/cache",
        "XDG_CONFIG_HOME": " /etc/own ",
    }
    assert paths.resolve_variables(variables) == []
    assert variables == {
        "HOME": "/home/someone",
        "WORKBENCH_CACHE": "/scratch/cache",
        "WORKBENCH_CONFIG": f"{folder}/config",
        "WORKBENCH_LOG_ROOT": "/home/someone/logs",
        "WORKBENCH_LOCKS": "/home/someone/locks",
        "XDG_CONFIG_HOME": "/etc/own",
    }
    before = dict(variables)
    assert paths.resolve_variables(variables) == []
    assert variables == before, "children do it again"


@pytest.mark.parametrize("empty", ["", " ", '""', "\r"])
def test_an_empty_variable_is_not_set(empty: str) -> None:
    variables = {"WORKBENCH_LOG_ROOT": empty, "XDG_CACHE_HOME": empty}
    assert paths.resolve_variables(variables) == []
    assert variables == {}


def test_an_unset_variable_in_a_variable_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCRATCH", raising=False)
    variables = {"WORKBENCH_CACHE": "${SCRATCH}/cache"}
    (sentence,) = paths.resolve_variables(variables)
    assert sentence == (
        "WORKBENCH_CACHE is '${SCRATCH}/cache', but ${SCRATCH} is not set; set it, or give a path"
    )


def test_only_a_leading_variable_that_names_a_folder_is_expanded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("HF_TOKEN", "secret-words")
    assert paths.resolve("$SCRATCH/m2kr") == Path("/scratch/me/m2kr")
    assert paths.resolve("${SCRATCH}") == Path("/scratch/me")
    for kept in ("$HF_TOKEN/x", "a$SCRATCH", "x/$SCRATCH", "$SCRATCHING/x", "$"):
        assert paths.resolve(kept) == folder / kept


def test_an_empty_log_root_is_not_the_current_folder() -> None:
    with pytest.raises(typer.BadParameter, match="is a variable of the shell not set"):
        options.parse_folder("")
    assert options.parse_folder(".") == Path()


def test_the_newest_suite_stays_the_newest_after_a_copy(tmp_path: Path) -> None:
    asked = plan.parse({"subsets": ["a"], "models": ["b"]})
    first, second = (suite.create_suite(tmp_path, asked, []) for _ in range(2))
    os.utime(first / "plan.toml", (2e9, 2e9))  # `cp -r`, git, an archive: times of the copying
    assert suite.list_suites(tmp_path) == [second, first]
    assert plan.load(first / "plan.toml") == asked
    (second / "plan.toml").unlink()
    os.mkfifo(second / "plan.toml")  # nobody waits for it
    assert suite.list_suites(tmp_path)[0] in (first, second)


def test_the_newest_suite_is_the_one_created_last_whatever_its_name_says(tmp_path: Path) -> None:
    for name, seconds in (("20261129-090000-seoul", 100.0), ("20261129-000000-utc", 200.0)):
        (tmp_path / name / "runs").mkdir(parents=True)
        (tmp_path / name / "plan.toml").write_text("")
        os.utime(tmp_path / name / "plan.toml", (seconds, seconds))
    assert [s.name for s in suite.list_suites(tmp_path)] == [
        "20261129-000000-utc",
        "20261129-090000-seoul",
    ]
    assert suite.find_suite(tmp_path, None).name == "20261129-000000-utc"
