"""Published results as records: what a report says, and nothing that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from results.comparison.document_view import merge_suites
from results.records import published_runs
from results.records.published_runs import PublishedError
from results.records.store import read_records
from results.records.suite_view import SuiteWords
from results.tables import captioning, training_stages
from tests.results.conftest import record
from workbench.cli.main import app
from workbench.reporting import note_writer
from workbench.reporting.suite_view import build_loose_view


def test_the_study_has_what_its_reports_say() -> None:
    first, second, third = published_runs.read_published("siglip-study").records
    assert [r.identity.label for r in (first, second, third)] == ["E5-v2", "E5-v3", "E7-v2"]
    assert second.timing.end_to_end_seconds.value == 7 * 3600 + 9 * 60
    assert third.timing.end_to_end_seconds.value is None
    assert third.timing.end_to_end_seconds.reason == published_runs.UNKNOWN
    assert second.memory.vram_allocated_peak.value is None
    values = {metric.name.partition(" (")[0]: metric.value for metric in second.metrics}
    assert values == {
        "diversity": 0.06, "SigLIP probability": 0.0032, "METEOR": 0.068, "BERTScore F1": 0.7002,
    }  # fmt: skip
    table = training_stages.epochs([second])
    rows = [[cell.text for cell in row][1:] for row in table.rows]
    assert rows[0][:3] == ["1", "1", "1.8168"]
    assert rows[-1] == [
        "2",
        "6",
        "1.2581",
        "–",
        "0.0032",
        "0.0600",
        "no improvement 3/3, early stop",
    ]
    assert len(rows) == 11
    no_losses = [[cell.text for cell in row][1:4] for row in training_stages.epochs([third]).rows]
    assert no_losses == [["2", "1", "–"], ["2", "2", "–"], ["2", "3", "–"]]


def test_the_last_epochs_loss_is_the_training_logs() -> None:
    losses = [r.train for r in published_runs.read_published("siglip-study").records]
    assert losses == [{"epoch_loss": 1.5151}, {"epoch_loss": 1.2581}, {}]


def test_importing_twice_adds_each_record_once_and_keeps_the_file(tmp_path: Path) -> None:
    command = ["results", "import", "siglip-study", "--log-root", str(tmp_path)]
    kept = published_runs.copy_path(tmp_path, "published-siglip-study")
    for word in ("imported", "is there already"):
        kept.unlink(missing_ok=True)
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0
        assert result.stdout.count(word) == 3
        assert published_runs.read_file(kept).name == "siglip-study"
    assert len(list(read_records(tmp_path / "results.jsonl"))) == 3

    view = build_loose_view(tmp_path, "published-siglip-study", [])
    rows = [[c.text for c in row] for row in captioning.experiments(view, "ko").rows]
    assert rows[1][:3] == ["E3", "MLP-2L", "21.0 M (보고서: 8M)"]
    assert [(row[0], row[-2]) for row in rows] == [
        ("E1", "기존 실험"), ("E3", "기존 실험"), ("E5", "기존 실험"), ("E1-v2", "대기"),
        ("E3-v2", "대기"),
    ]  # fmt: skip
    assert rows[3][-1].startswith("첫 검증"), "its finding is a note"
    suite = note_writer.find_target(tmp_path, "siglip-study")
    assert suite == ("published-siglip-study", ""), "as the places to fill in name it"
    planned = note_writer.find_target(tmp_path, "E1-v2")
    assert planned == ("published-siglip-study", "published-e1-v2"), "it takes notes"
    own = view.model_copy(update={"name": "own", "planned": (), "records": (
        record(identity={"engine": "captioning", "label": "E1-v2"}),)})  # fmt: skip
    merged = merge_suites([view, own], SuiteWords())
    assert [i.label for i in merged.planned] == ["E1", "E3", "E5", "E3-v2"], "E1-v2 was run"
    chosen = build_loose_view(tmp_path, "published-siglip-study", [], {"published-e5-v2"})
    assert chosen.planned == (), "a report of one run has no plans"
    kept.write_text("name = 1")
    assert build_loose_view(tmp_path, "published-siglip-study", []).planned == ()


HEAD = "schema = 1\nname = 'n'\nsource = 's'\nengine = 'vqa'\nexperiment = []\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read (No such file or directory); give a TOML file, or one of siglip"),
        ("schema = ", "is no TOML"),
        ("schema = 1\nnmae = 2", "name: Field required; mend it"),
        (f"{HEAD}[[planned]]\nlabel = 1", "planned.0.label: Input should be a valid string"),
        (f"{HEAD}[[check]]\nsubset = 's'", "check.0.records: Field required"),
        (
            f"{HEAD}[[comparison]]\nfirst = 'a'\nsecond = 'b'\nrecords = [1]",
            "comparison.0.records.1: Field required",
        ),
        (f"{HEAD}reported = {{ projektor = 'x' }}", "Input should be 'projector'"),
    ],
)
def test_a_wrong_file_is_one_sentence_and_imports_nothing(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    path = tmp_path / "p.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(PublishedError) as error:
        published_runs.read_published(str(path))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_the_weekly_report_and_the_challenge_ship_with_their_own_numbers(tmp_path: Path) -> None:
    """Both documents are written again from what was published, the reported numbers in them."""
    runner, at_root = CliRunner(), ["--log-root", str(tmp_path)]
    for name in ("weekly-m2kr", "vqa-challenge"):
        result = runner.invoke(app, ["results", "import", name, *at_root])
        assert result.exit_code == 0, result.output

    weekly = runner.invoke(app, ["report", "weekly-m2kr", "--kind", "weekly", *at_root]).stdout
    flag = "**[imported]**"
    row = f"| `oven_train` {flag} | 339,137 | 5,300 | **8:01.39** | ~3.15 GiB | 0 |"
    assert row in weekly
    assert f"| `okvqa_mm_train` {flag} | 3.6432 | 0.4884 |" in weekly
    assert "- MobileCLIP도 같은 방식으로 측정" in weekly  # a note on a suite that has no folder
    assert f"(question, image_path, passage_text, passage_image_path, passage_id) {flag}" in weekly
    assert "| 2-3 | 29.76 % | 39.61 % | +9.85 |" in weekly, "the data are not here"
    assert "## Summary\n\n- Total, sequential: **about 14 min 59 s**" in weekly
    assert "`CUDA_VISIBLE_DEVICES=0`" in weekly

    report = ["report", "vqa-challenge", "--kind", "challenge", *at_root]
    challenge = runner.invoke(app, report).stdout
    assert f"| vqa-v4 {flag} | – | 0.924 | – | vqa-v3 (0.827) | +0.097 |" in challenge
    missing = f"n/a ({published_runs.UNKNOWN})"
    rows = [line for line in challenge.splitlines() if line.startswith("| `vqa_challenge_train`")]
    assert all(cell.strip() == missing for cell in rows[1].split("|")[-3:-1])  # no exit code
    assert "not reached" not in challenge


def test_notes_of_a_file_are_added_once(tmp_path: Path) -> None:
    command = ["results", "import", "vqa-challenge", "--log-root", str(tmp_path)]
    for _ in range(2):
        assert CliRunner().invoke(app, command).exit_code == 0
    lines = (tmp_path / "notes.jsonl").read_text().splitlines()
    assert len(lines) == 7


def test_curves_of_unequal_length_are_those_of_their_epochs(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    head = 'schema = 1\nname = "x"\nsource = "s"\nengine = "e"\nsubset = "d"\nmodel = "m"\n'
    path.write_text(f"{head}[[experiment]]\nlosses = [[2.0, 1.0]]\n"
                    "score = [0.1, 0.2]\ndiversity = [0.5]\npatience = 1\n")  # fmt: skip
    (record,) = published_runs.read_published(str(path)).records
    curves = [epoch.validation for epoch in record.training_epochs]
    assert curves == [{"siglip": 0.1, "diversity": 0.5}, {"siglip": 0.2}]
    assert [epoch.since_best for epoch in record.training_epochs] == [0, 0]
