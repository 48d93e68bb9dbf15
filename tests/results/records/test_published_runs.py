"""Published results as records: what a report says, and nothing that it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from results.records import published_runs
from results.records.published_runs import PublishedError
from results.records.store import read_records
from results.tables import training_stages
from workbench.cli.main import app


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


def test_importing_twice_adds_each_record_once(tmp_path: Path) -> None:
    command = ["results", "import", "siglip-study", "--log-root", str(tmp_path)]
    for word in ("imported", "is there already"):
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0
        assert result.stdout.count(word) == 3
    assert len(list(read_records(tmp_path / "results.jsonl"))) == 3


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "cannot be read (No such file or directory); give a TOML file, or one of siglip"),
        ("schema = ", "is no TOML"),
        ("schema = 1\nnmae = 2", "name: Field required; mend it"),
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
