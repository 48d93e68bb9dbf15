"""`workbench results compare` and `explain`, by every name that a run has."""

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from results.records import store
from tests.workbench.tui import sample_suites
from workbench.cli.main import app
from workbench.reporting.run_groups import find_groups
from workbench.suites.suite import SuiteError


def write_runs(log_root: Path) -> None:
    """Two labels of one suite; the second with two seeds, and one run that failed."""
    for run_id, label, seed, lr, cause in (
        ("01-a", "base", 1, 1e-3, "completed"),
        ("02-a", "high rate", 1, 2e-3, "completed"),
        ("03-a", "high rate", 2, 2e-3, "completed"),
        ("04-a", "failed", 1, 1e-3, "failed"),
    ):
        record = sample_suites.record("study", 1, random.Random(1))
        identity = record.identity.model_copy(
            update={"run_id": run_id, "label": label, "seed": seed, "params": {"lr": lr},
                    "subset": "emoji_train", "model": "clip-nano", "task": "train"})  # fmt: skip
        ended = record.exit.model_copy(update={"cause": cause})
        store.append_record(
            log_root / "results.jsonl",
            record.model_copy(update={"identity": identity, "exit": ended}),
        )


def test_a_label_is_the_group_of_its_seeds(tmp_path):
    write_runs(tmp_path)
    base, high = find_groups(tmp_path, ["study/base", "high rate"])
    assert [r.identity.run_id for r in base.records] == ["01-a"]
    assert [r.identity.seed for r in high.records] == [1, 2]
    (single,) = find_groups(tmp_path, ["03"])
    assert [r.identity.run_id for r in single.records] == ["03-a"]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("study", "fits 3 runs that differ"), ("failed", "no completed run"), ("x", "no completed")],
)
def test_names_that_fit_nothing_or_too_much_are_refused(tmp_path, name, sentence):
    write_runs(tmp_path)
    with pytest.raises(SuiteError, match=sentence):
        find_groups(tmp_path, [name])


@pytest.mark.parametrize("names", [("base", "01-a"), ("high rate", "03"), ("base", "base")])
def test_a_run_is_not_compared_with_itself(tmp_path, names):
    write_runs(tmp_path)
    with pytest.raises(SuiteError, match=f"'{names[0]}' and '{names[1]}' are one run, study/0"):
        find_groups(tmp_path, names)
    with pytest.raises(SuiteError, match="the name of a run is empty"):
        find_groups(tmp_path, ["", "base"])


def test_the_commands_print_tables_sentences_and_json(tmp_path):
    write_runs(tmp_path)

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["results", *arguments, "--log-root", str(tmp_path)])
        assert done.exit_code == 0, done.output
        return done.output

    table = run("compare", "base", "high rate")
    assert "lr" in table
    assert "nothing about the noise of training" in table
    assert run("compare", "base", "high rate", "--markdown").count("|---") > 5
    assert run("explain", "base", "02-a", "--lang", "ko").startswith("차이: lr (0.001 → 0.002)")
    data = json.loads(run("compare", "base", "high rate", "--json"))
    assert {"kind": "settings", "name": "lr", "a": [0.001], "b": [0.002]} in data["differences"]
    assert data["metrics"][0]["verdict"]


def test_one_run_alone_is_refused_with_the_usage(tmp_path):
    done = CliRunner().invoke(app, ["results", "compare", "a", "--log-root", str(tmp_path)])
    assert done.exit_code == 2
    assert "give 2 to 6 runs" in done.output
