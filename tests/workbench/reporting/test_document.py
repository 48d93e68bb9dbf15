"""Which runs a report is of, and what a document holds: two weeks of suites on disk."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from results.comparison.document_view import DocumentView
from results.records import published_runs, store
from tests.results.conftest import record
from tests.workbench.tui.sample_suites import make_suite
from workbench.cli.main import app
from workbench.reporting import document, note_writer, report_process, selection, suite_view
from workbench.reporting.document import DocumentRequest
from workbench.reporting.period import Period
from workbench.reporting.selection import SelectedSuite
from workbench.suites import suite
from workbench.suites.suite import SuiteError

THIS_WEEK = Period(date(2026, 11, 23), date(2026, 11, 29))
RUN = "01-retrieval-oven_train-tinyclip-61m"


def wall(day: str) -> float:
    return datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC).timestamp()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Last week's and this week's `weekly`, a suite of this week that waits, imported results."""
    cells = [("oven_train", "tinyclip-61m"), ("evqa_train", "tinyclip-61m")]
    for stamp, day in (("20261117-090000", "2026-11-17"), ("20261124-090000", "2026-11-24")):
        folder = make_suite(tmp_path, cells, stamp=stamp)
        identity = {"suite": folder.name, "params": {"lr": float(day[-2:]) * 1e-5}}
        done = record(RUN, identity=identity, ended_wall=wall(day), started_wall=wall(day))
        store.append_record(tmp_path / "results.jsonl", done)
    make_suite(tmp_path, cells[:1], name="mobile", stamp="20261126-090000")
    for imported in published_runs.read_published("siglip-study").records:
        store.append_record(tmp_path / "results.jsonl", imported)
    return tmp_path


def select(root: Path, *names: str, several: bool = False) -> list[SelectedSuite]:
    return selection.select_by_names(root, names, suite_view.read_records(root), several=several)


def build(root: Path, *names: str, period: Period | None = None) -> list[DocumentView]:
    records = suite_view.read_records(root)
    suites = selection.select_by_names(root, names, records, several=period is not None)
    if period:
        suites = selection.select_by_period(root, period, records, suites)
    return document.build_documents(DocumentRequest(root, suites, None, period), records)


def test_names_of_suites_and_runs(root: Path) -> None:
    (whole,) = select(root, "20261117")
    assert (whole.name, whole.runs) == ("20261117-090000-weekly-m2kr-1a2b", None)
    assert [s.name for s in select(root, "weekly", several=True)] == [
        "20261124-090000-weekly-m2kr-1a2b", "20261117-090000-weekly-m2kr-1a2b",
    ]  # fmt: skip
    (run,) = select(root, f"{whole.name}/{RUN}")
    assert run.runs == {RUN}
    both = select(root, f"{whole.name}/{RUN}", f"{whole.name}/02-retrieval-evqa")
    assert both[0].runs == {RUN, "02-retrieval-evqa_train-tinyclip-61m"}
    assert select(root, f"{whole.name}/{RUN}", whole.name)[0].runs is None, "the whole suite"
    (imported,) = select(root, "E5-v3")
    assert imported == SelectedSuite("published-siglip-study", None, frozenset({"published-e5-v3"}))
    assert select(root, str(root / whole.name)) == [whole]


def test_records_outlive_the_folder_of_their_suite(root: Path) -> None:
    """Whoever is short of space deletes folders; `results list` names the records."""
    name = "20261124-090000-weekly-m2kr-1a2b"
    shutil.rmtree(root / name / "runs")
    assert select(root, f"{name}/{RUN}") == [SelectedSuite(name, None, frozenset({RUN}))]
    (view,) = build(root, name)[0].parts
    assert (view.name, view.state, list(view.runs)) == (name, "removed", [RUN])
    assert [s.name for s in selection.select_by_period(
        root, THIS_WEEK, suite_view.read_records(root)
    )] == ["20261126-090000-mobile-1a2b", name]  # fmt: skip
    for folder in root.glob("2026*"):
        shutil.rmtree(folder)
    with pytest.raises(SuiteError, match="has records but no suite's folder"):
        suite.find_suite(root, None)


def test_what_has_a_tag(root: Path) -> None:
    note_writer.add_note(root, ("20261117-090000-weekly-m2kr-1a2b", RUN), "tag", "base")
    note_writer.add_note(root, ("20261126-090000-mobile-1a2b", ""), "tag", "base")
    note_writer.add_note(root, ("published-siglip-study", "published-e5-v2"), "tag", "base")
    assert [(s.name, s.runs) for s in select(root, "tag:base")] == [
        ("20261117-090000-weekly-m2kr-1a2b", {RUN}), ("20261126-090000-mobile-1a2b", None),
        ("published-siglip-study", {"published-e5-v2"}),
    ]  # fmt: skip
    with pytest.raises(SuiteError, match="nothing has the tag 'bse'; `workbench results note"):
        select(root, "tag:bse")


@pytest.mark.parametrize(("name", "words"), [
    ("weekly", "fits 2 suites; give more of the name"),
    (RUN, r"fits runs of 3 suites \(.*, …\); give suite/run|fits runs of 3 suites"),
    ("nothing", "no suite 'nothing', and no run of that name"),
])  # fmt: skip
def test_names_that_fit_nothing_or_too_much(root: Path, name: str, words: str) -> None:
    with pytest.raises(SuiteError, match=words):
        select(root, name)


def test_the_week_has_its_runs_those_that_wait_and_what_changed(root: Path) -> None:
    note_writer.add_note(root, ("week:2026-W48", ""), "conclusion", "cheap enough")
    (week,) = build(root, period=THIS_WEEK)
    assert week.kind == "weekly"
    names = ["20261124-090000-weekly-m2kr-1a2b", "20261126-090000-mobile-1a2b"]
    assert [part.name for part in week.parts] == names
    assert [r.identity.suite for r in week.suite.records] == names[:1]
    assert week.suite.pending == (
        "02-retrieval-evqa_train-tinyclip-61m", f"mobile-1a2b/{RUN}",
    ), "equal ids carry their suite"  # fmt: skip
    assert (week.note_target, week.suite.words.conclusion) == ("week:2026-W48", "cheap enough")
    (change,) = week.changes
    assert change.run == f"weekly-m2kr-1a2b/{RUN}"
    assert change.settings == (("lr", "0.00017", "0.00024"),)
    assert week.earlier_runs == 1
    again = build(root, period=THIS_WEEK)[0]
    assert again.model_dump_json() == week.model_dump_json(), "written again: the same"
    (named,) = build(root, "mobile", "siglip", period=THIS_WEEK)
    assert [part.name for part in named.parts] == ["published-siglip-study", names[1]]


def test_the_trash_is_in_no_week(root: Path) -> None:
    last, this = (f"{stamp}-090000-weekly-m2kr-1a2b" for stamp in ("20261117", "20261124"))
    note_writer.add_note(root, (last, RUN), "tombstone", "by mistake")
    (week,) = build(root, period=THIS_WEEK)
    assert (week.changes, week.earlier_runs) == ((), 0)
    note_writer.add_note(root, (this, RUN), "tombstone", "by mistake")
    (week,) = build(root, period=THIS_WEEK)
    assert week.suite.records == ()
    assert f"weekly-m2kr-1a2b/{RUN}" not in week.suite.pending
    note_writer.add_note(root, (last, RUN), "tombstone", "")
    assert build(root, period=THIS_WEEK)[0].earlier_runs == 1, "taken back"


def test_a_week_without_runs_is_refused(root: Path) -> None:
    with pytest.raises(SuiteError, match="no run ended from 2026-10-05 to 2026-10-11"):
        build(root, period=Period(date(2026, 10, 5), date(2026, 10, 11)))


@pytest.mark.parametrize(("names", "kind"), [
    (["20261117"], "suite"),
    (["20261124-090000-weekly-m2kr-1a2b/01"], "run"),
    (["20261124", "mobile"], "study"),
    (["published"], "study"),
    (["E5-v2", "E5-v3"], "study"),
    (["E5-v2"], "run"),
])  # fmt: skip
def test_the_kind_follows_from_what_is_named(root: Path, names: list[str], kind: str) -> None:
    assert [d.kind for d in build(root, *names)] == [kind]


def test_a_run_is_compared_with_its_previous_version_of_any_suite(root: Path) -> None:
    (one,) = build(root, "E5-v3")
    (change,) = one.baselines
    assert (change.label, change.relation) == ("E5-v2", "previous")
    assert {v.name for v in change.values} >= {"diversity", "wall"}
    assert one.note_target == "published-siglip-study/published-e5-v3"


def test_the_command(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views: list[tuple[list[str], dict[str, Any]]] = []

    def run_child(command: list[str], **options: Any) -> SimpleNamespace:
        views.append((command, json.loads(options["input"])))
        text = b"# T\n\n## A\n\n**1**\n\n## B\n\n2\n"
        return SimpleNamespace(returncode=0, stdout=text if options["stdout"] else None)

    monkeypatch.setattr(report_process.subprocess, "run", run_child)
    monkeypatch.setattr("workbench.data_profile.report_checks.check_subsets", lambda *_, **__: ())
    run = ["report", "--log-root", str(root)]
    days = ["--since", "2026-11-23", "--to", "2026-11-29"]
    assert CliRunner().invoke(app, [*run, *days]).exit_code == 0
    assert CliRunner().invoke(app, run).exit_code == 0, "the newest suite"
    assert CliRunner().invoke(app, [*run, "20261124", "--kind", "study"]).exit_code == 0
    each = [*run, "published", "--kind", "run", "--out", str(root / "out")]
    assert CliRunner().invoke(app, each).exit_code == 0
    kinds = ["weekly", "suite", "study", "run", "run", "run"]
    assert [view["kind"] for _, view in views] == kinds
    assert views[1][1]["suite"]["name"] == "20261126-090000-mobile-1a2b"
    assert views[-1][0][-1] == str(root / "out" / "published-e7-v2"), "a folder each"
    brief = CliRunner().invoke(app, [*run, "--brief"])
    assert brief.stdout == "# T\n\n## A\n\n**1**\n\n", "Markdown where stdout is no terminal"
    monkeypatch.setattr(report_process, "is_terminal", lambda: True)
    assert "**" not in CliRunner().invoke(app, [*run, "--brief"]).stdout
    for words, problem in (
        (["--kind", "monthly"], "use suite, weekly, study, audit, challenge, run"),
        (["--to", "2026-11-29"], "give --since, too"),
        (["--brief", "--out", "x"], "leave out --out"),
        (["--since", "someday"], "'someday' is no day"),
        (["nothing"], "no suite 'nothing'"),
    ):
        refused = CliRunner().invoke(app, [*run, *words])
        assert refused.exit_code != 0
        assert problem in refused.output + str(refused.exception)


def test_a_record_is_found_by_its_id_its_label_or_a_part_of_its_id() -> None:
    records = [
        record(run_id="01-a-v", identity={"label": "V"}),
        record(run_id="02-b", identity={"label": "E5-v2"}),
        record(run_id="02-b-E5-v2-twice", identity={"label": "other"}),
    ]
    for name, run in (("V", 0), ("01-a", 0), ("E5-v2", 1), ("02-b", 1), ("twice", 2)):
        assert suite_view.find_record(records, name, Path()) is records[run], name
    with pytest.raises(SuiteError, match="no run 'E6'"):
        suite_view.find_record(records, "E6", Path())
