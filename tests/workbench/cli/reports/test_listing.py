"""`workbench results list`, `views` and `export --filter`: filters, pages, columns, saved views."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.workbench.tui import sample_suites
from workbench.cli.main import app


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log root with 12 runs, and folders of its own."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORKBENCH_CONFIG", str(tmp_path / "config"))
    sample_suites.write_records(tmp_path / "logs", 12)
    return tmp_path / "logs"


def results(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["results", *words, "--log-root", str(root)])


def ids(done: Result) -> list[str]:
    return [line.split()[1][:2] for line in done.stdout.splitlines()]


def test_pages_and_filters_cut_the_same_list(root: Path) -> None:
    everything = ids(results(root, "list"))
    assert everything == [f"{number:02d}" for number in range(12)]
    assert ids(results(root, "list", "--limit", "5")) == everything[-5:]
    assert ids(results(root, "list", "--limit", "5", "--page", "3")) == everything[:2]
    assert ids(results(root, "list", "--limit", "5", "--page", "4")) == []
    assert ids(results(root, "list", "end:failed")) == ["05"]
    clip = ids(results(root, "list", "model:clip", "end:ok", "score>.1"))
    assert 0 < len(clip) < 12
    assert clip == ids(results(root, "list", "model:clip -end:failed"))
    ordered = results(root, "list", "--sort", "score", "--column", "score", "--json", "end:ok")
    scores = [json.loads(line)["score"] for line in ordered.stdout.splitlines()]
    assert scores == sorted(scores)
    records = results(root, "list", "--limit", "1", "--json").stdout
    assert json.loads(records)["identity"]["run_id"].startswith("11-")


def test_a_column_is_named_as_in_filters_and_settings(root: Path) -> None:
    keys = ("when", "model", "epochs", "rss", "step", "recall@1@okvqa_test")
    done = results(root, "list", "--limit", "1", *(w for key in keys for w in ("--column", key)))
    head, _, row = done.stdout.splitlines()
    assert head.split() == list(keys)
    assert row.split()[:2] == ["2026-11-18", row.split()[1]]
    assert "3.15 GiB  86.4 ms" in row


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["list", "modle:x"], "no field 'modle'; did you mean model?"),
        (["list", "--column", "modell"], "no column 'modell'; did you mean model?"),
        (["list", "--view", "weekly"], "no view 'weekly'"),
        (["export", "x.csv", "--filter", "score>x"], "'x' is no number"),
        (["export", "x.csv", "--run", "s/r"], "no run 's/r'"),
    ],
)
def test_a_wrong_word_is_a_sentence_and_exit_code_2(
    root: Path, words: list[str], sentence: str
) -> None:
    done = results(root, *words)
    assert sentence in (done.stderr or str(done.exception))
    assert done.exit_code == 2 or done.exception is not None


def test_a_view_is_saved_listed_used_and_removed(root: Path) -> None:
    def views(*words: str) -> Result:
        return CliRunner().invoke(app, ["views", *words])

    saved = views("save", "weekly", "end:ok lr>0", "--column", "model", "--column", "score")
    assert (saved.exit_code, saved.stdout) == (0, "")
    assert "filter: end:ok lr>0  columns: model,score" in views().stdout
    (row,) = views("--json").stdout.splitlines()
    assert json.loads(row)["name"] == "weekly"
    views("save", "weekly", "end:failed", "--column", "model")
    assert len(results(root, "list", "--view", "weekly").stdout.splitlines()) == 2 + 1
    assert views("remove", "weekly").exit_code == 0
    assert "no views yet" in views().stderr
    assert views("save", "x", "since:never").exit_code == 2


def test_an_export_takes_a_filter_or_runs_by_name_in_their_order(root: Path) -> None:
    import pandas as pd

    done = results(root, "export", str(root / "x.csv"), "--filter", "end:failed")
    assert done.stdout.startswith("1 run, ")
    names = [
        f"{row['suite']}/{row['run_id']}"
        for row in map(
            json.loads, results(root, "list", "--column", "run", "--json").stdout.splitlines()
        )
    ]
    chosen = [names[3], names[1]]
    done = CliRunner().invoke(
        app, ["results", "export", str(root / "y.csv"), "--run", "-", "--log-root", str(root)],
        input="\n".join(chosen) + "\n",
    )  # fmt: skip
    frame = pd.read_csv(root / "y.csv")
    assert (frame["suite"] + "/" + frame["run_id"]).tolist() == chosen
