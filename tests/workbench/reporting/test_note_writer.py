"""Notes by command, and which captions a report shows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from results.records import notes, published_runs, store
from results.records.schema import MetricRecord
from tests.workbench.tui import sample_suites
from workbench.reporting import caption_examples, note_writer
from workbench.suites.suite import SuiteError


def _suite(log_root: Path, name: str, *runs: tuple[str, str]) -> None:
    for run_id, label in runs:
        folder = log_root / name / "runs" / run_id
        folder.mkdir(parents=True)
        spec = {
            "suite": name, "run_id": run_id, "engine": "captioning", "task": "train",
            "subset": "s", "model": "m", "label": label, "cache_root": "/c",
        }  # fmt: skip
        (folder / "spec.json").write_text(json.dumps(spec))
    (log_root / name / "plan.toml").write_text("")


def test_a_run_is_found_by_label_or_part_and_noted(tmp_path: Path) -> None:
    _suite(tmp_path, "20260101-study-ab12", ("01-captioning-a", "E5-v2"), ("02-captioning-b", ""))
    key = note_writer.find_target(tmp_path, "E5-v2")
    assert key == ("20260101-study-ab12", "01-captioning-a")
    assert note_writer.find_target(tmp_path, "study-ab12/02")[1] == "02-captioning-b"
    note_writer.add_note(tmp_path, key, "finding", " mode\ncollapse ")
    note_writer.add_note(tmp_path, key, "finding", "rates did not cure it")
    note_writer.add_note(tmp_path, key, "state", "done")
    note_writer.add_note(tmp_path, key, "state", "stopped")
    found = note_writer.read_standing(tmp_path, key)
    assert found.findings == ("mode collapse", "rates did not cure it")
    assert found.state == "stopped"
    assert len(notes.read_notes(tmp_path / "notes.jsonl").all()) == 4  # nothing is edited
    broken = tmp_path / "20260102-other-cd34" / "runs" / "01"
    broken.mkdir(parents=True)
    (broken.parents[1] / "plan.toml").write_text("")
    assert note_writer.find_target(tmp_path, "E5-v2") == key, (
        "a broken suite beside it is no reason"
    )
    with pytest.raises(SuiteError, match="no run 'E9'"):
        note_writer.find_target(tmp_path, "E9")
    with pytest.raises(SuiteError, match="fits 2 runs"):
        note_writer.find_target(tmp_path, "captioning")
    note_writer.add_note(tmp_path, key, "state", "기존 실험")
    assert note_writer.read_standing(tmp_path, key).state == "기존 실험"
    with pytest.raises(note_writer.NoteError, match="too long; 40"):
        note_writer.add_note(tmp_path, key, "state", "x" * 41)
    with pytest.raises(note_writer.NoteError, match="empty"):
        note_writer.add_note(tmp_path, key, "finding", "  ")


def test_a_suite_takes_links_to_documents_beside_its_report(tmp_path: Path) -> None:
    _suite(tmp_path, "20260101-study-ab12", ("01-captioning-a", "E5-v2"))
    key = note_writer.find_target(tmp_path, "study")
    note_writer.add_link(tmp_path, key, "01_results.md  what each run came to")
    note_writer.add_link(tmp_path, key, "https://example.org/x?a=b")
    found = note_writer.read_standing(tmp_path, key)
    assert found.links == (
        ("01_results.md", "what each run came to"),
        ("https://example.org/x?a=b", "https://example.org/x?a=b"),
    )
    assert ("link", "01_results.md  what each run came to") in note_writer.standing_lines(found)
    note_writer.add_note(tmp_path, key, "withdrawn", "01_results.md")
    assert len(note_writer.read_standing(tmp_path, key).links) == 1
    for wrong in ("javascript:alert(1) x", "/etc/passwd x", "file:///x y", ""):
        with pytest.raises(note_writer.NoteError, match="relative path or an http address"):
            note_writer.add_link(tmp_path, key, wrong)
    with pytest.raises(note_writer.NoteError, match="noted on a suite"):
        note_writer.add_link(tmp_path, (key[0], "01-captioning-a"), "a.md b")


def test_a_suite_takes_every_kind_of_note_and_gives_it_back(tmp_path: Path) -> None:
    _suite(tmp_path, "20260101-study-ab12", ("01-captioning-a", "E5-v2"))
    key = note_writer.find_target(tmp_path, "study")
    assert key == ("20260101-study-ab12", "")
    for kind in ("title", "goal", "background", "conclusion", "next", "finding"):
        note_writer.add_note(tmp_path, key, kind, f"the {kind}")
    note_writer.add_note(tmp_path, key, "next", "second step")
    note_writer.add_note(tmp_path, key, "event", "E5-v2 done", date="2026-01-20")
    note_writer.add_reason(tmp_path, key, "s=images on both sides")
    note_writer.add_reason(tmp_path, key, "E5-v2=lower rate")
    note_writer.add_reason(tmp_path, key, "fits = the budget")
    found = note_writer.read_standing(tmp_path, key)
    assert (found.title, found.goal) == ("the title", "the goal")
    assert found.next_steps == ("the next", "second step")
    assert found.events == (("2026-01-20", "E5-v2 done"),)
    assert found.reasons == {
        "s": "images on both sides", "E5-v2": "lower rate", "": "fits = the budget",
    }  # fmt: skip
    note_writer.add_note(tmp_path, key, "withdrawn", "the next")
    note_writer.add_note(tmp_path, key, "title", "")
    note_writer.add_note(tmp_path, key, "reason", "", about="s")
    found = note_writer.read_standing(tmp_path, key)
    assert (found.title, found.next_steps) == ("", ("second step",))
    assert "s" not in found.reasons
    with pytest.raises(note_writer.NoteError, match="nothing noted reads 'no such'"):
        note_writer.add_note(tmp_path, key, "withdrawn", "no such")
    with pytest.raises(note_writer.NoteError, match=r"give 20260101-study-ab12$"):
        note_writer.add_note(tmp_path, (key[0], "01-captioning-a"), "title", "x")
    for kind in ("state", "public-score"):
        with pytest.raises(note_writer.NoteError, match="give suite/run"):
            note_writer.add_note(tmp_path, key, kind, "0.9")


def test_a_run_and_a_week_take_a_conclusion_and_next_steps(tmp_path: Path) -> None:
    _suite(tmp_path, "20260101-study-ab12", ("01-captioning-a", "E5-v2"))
    imported = published_runs.read_published("siglip-study").records[1]
    store.append_record(tmp_path / "results.jsonl", imported)
    for name in ("E5-v2", "week:2026-W48", "E5-v3"):
        key = note_writer.find_target(tmp_path, name)
        note_writer.add_note(tmp_path, key, "conclusion", f"of {name}")
        note_writer.add_note(tmp_path, key, "next", "Linear")
        standing = note_writer.read_standing(tmp_path, key)
        assert (standing.conclusion, standing.next_steps) == (f"of {name}", ("Linear",))
    assert key == ("published-siglip-study", "published-e5-v3"), "an imported run"
    for reason in ("s=images on both sides", "x=y is no name", "enough for a week"):
        note_writer.add_reason(tmp_path, ("week:2026-W48", ""), reason)
    reasons = note_writer.read_standing(tmp_path, ("week:2026-W48", "")).reasons
    assert reasons == {"s": "images on both sides", "": "enough for a week"}
    note_writer.add_note(tmp_path, key, "public-score", "0.924")
    assert ("public", "0.924") in note_writer.standing_lines(
        note_writer.read_standing(tmp_path, key)
    )
    note_writer.add_note(tmp_path, key, "public-score", "")
    assert note_writer.read_standing(tmp_path, key).public_score == ""


def test_the_command_notes_and_shows(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from workbench.cli.main import app

    _suite(tmp_path, "20260101-study-ab12", ("01-captioning-a", "E5-v2"))
    run = ["results", "note", "E5-v2", "--log-root", str(tmp_path)]
    done = CliRunner().invoke(app, [*run, "--finding", "evil \x1b[2J", "--state", "done"])
    assert done.exit_code == 0, done.output
    assert "done" in done.output
    assert "\x1b" not in done.output
    assert "evil" in CliRunner().invoke(app, run).output


def _record(scores_file: str) -> object:
    import random

    built = sample_suites.record("s", 1, random.Random(1))
    metrics = tuple(
        MetricRecord(name=name, value=0.5, split="toy", n=8, scores_file=scores_file)
        for name in ("diversity", "METEOR (exact, x)")
    )
    return built.model_copy(update={"metrics": metrics, "folder": "s/runs/01"})


def test_best_and_worst_captions_with_pictures_inside_their_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "0.png").write_bytes(b"x")
    (tmp_path / "secret.png").write_bytes(b"x")
    folder = tmp_path / "s" / "runs" / "01" / "predictions"
    folder.mkdir(parents=True)
    lines = [
        {"id": f"i{k}", "medium": f"{k}.png", "caption": f"c{k}", "references": ["r"],
         "METEOR (exact, x)": 1 - k / 10}
        for k in range(8)
    ]  # fmt: skip
    lines[7]["medium"] = "../secret.png"
    lines.insert(1, {**lines[0], "id": "same"})  # one caption is shown once
    lines.insert(4, {**lines[0], "caption": "no number", "METEOR (exact, x)": math.nan})
    bad = ["not JSON", "[1]", "[" * 100_000, '{"caption": 3}']
    text = "\n".join([*bad, *map(json.dumps, lines)])
    (folder / "toy.jsonl").write_text(text)
    monkeypatch.setattr(caption_examples, "find_image_root", lambda *_: root.resolve())
    shown = caption_examples.collect_caption_examples(
        _record("predictions/toy.jsonl"), tmp_path, tmp_path
    )
    assert [(one.standing, one.caption) for one in shown] == [
        ("best", "c0"), ("best", "c1"), ("best", "c2"),
        ("worst", "c5"), ("worst", "c6"), ("worst", "c7"),
    ]  # fmt: skip
    assert shown[0].picture == str((root / "0.png").resolve())
    assert shown[1].picture == ""  # missing
    assert shown[-1].picture == ""  # outside
    assert (
        caption_examples.collect_caption_examples(
            _record("predictions/none.jsonl"), tmp_path, tmp_path
        )
        == ()
    )


def test_the_command_notes_on_a_suite(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from workbench.cli.main import app

    _suite(tmp_path, "20260101-study-ab12", ("01-captioning-a", "E5-v2"))
    suite = ["results", "note", "study", "--log-root", str(tmp_path)]
    given = ["--next", "E1-v2 (Linear)", "--event", "E5-v3 완료", "--date", "2026-01-20",
             "--why", "s=text+image", "--conclusion", "단순한 Projector"]  # fmt: skip
    done = CliRunner().invoke(app, [*suite, *given])
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(app, suite).output
    for line in ("20260101-study-ab12\n", "  next       E1-v2 (Linear)", "2026-01-20  E5-v3 완료",
                 "why        s: text+image", "conclusion 단순한"):  # fmt: skip
        assert line in shown
    wrong = CliRunner().invoke(app, ["results", "note", "E5-v2", "--title", "x", *suite[-2:]])
    assert wrong.exit_code != 0
