"""The VQA part of reports: folds side by side, an ensemble against them, errors with pictures."""

from __future__ import annotations

from pathlib import Path

from results import report
from results.records.schema import MetricRecord
from results.records.suite_view import AnsweredSplit, AnswerExample, SuiteView
from results.tables import vqa
from results.text.table import render_markdown


def png() -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"\0" * 16


def score(name, value, low=None, high=None, split="quiz", n=200, method="Wilson, 95%"):
    return MetricRecord(name=name, value=value, split=split, n=n, low=low, high=high, method=method)


def fold(make, number, accuracy):
    made = make.record(f"0{number}-vqa-f{number}")
    identity = made.identity.model_copy(
        update={"engine": "vqa", "params": {"folds": 3, "fold": number - 1}}
    )
    metrics = (
        score("coverage", 1.0),
        score("accuracy", accuracy, accuracy - 0.05, accuracy + 0.05),
        score("accuracy[blank image]", 0.26, 0.2, 0.32),
        score("picture gain", accuracy - 0.26, 0.1, 0.3, method="paired bootstrap; McNemar p = 1"),
        score("accuracy[written]", 0.5, n=32),
        score("unparsable", 0.03, n=32),
        score("ECE", 0.041, method="15 equal bins; a calibrated model 0.03"),
    )
    return made.model_copy(update={"identity": identity, "metrics": metrics})


def together(make):
    made = make.record("04-vqa-ensemble")
    identity = made.identity.model_copy(
        update={"engine": "vqa", "task": "ensemble", "params": {"folds": 3, "fold": 0}}
    )
    against = "over fold 2, the best on its own held-out rows; paired bootstrap"
    metrics = (
        score("accuracy", 0.6, 0.5, 0.7),
        *(score(f"accuracy[fold {n}]", 0.5 + n / 100, 0.4, 0.6) for n in (1, 2, 3)),
        score("accuracy[majority]", 0.56, 0.5, 0.6),
        score("accuracy[probability]", 0.6, 0.5, 0.7),
        score("accuracy[stacked]", 0.45, 0.4, 0.5),
        score("gain[majority]", 0.04, -0.01, 0.09, method=against),
        score("gain[probability]", 0.08, 0.03, 0.13, method=against),
        score("gain[stacked]", -0.07, -0.12, -0.02, method=against),
        score("gain over the mean fold", 0.08, 0.05, 0.11),
        score("accuracy", 0.5, 0.4, 0.6, split="out-of-fold"),
        score("accuracy[stacked]", 0.52, 0.4, 0.6, split="out-of-fold"),
        score("gain[stacked]", 0.02, -0.05, 0.09, split="out-of-fold", method="paired"),
        score("ECE[temperature]", 0.031, None, None, split="out-of-fold"),
        score("gain[temperature]", 0.012, 0.004, 0.02, split="out-of-fold", method="paired"),
    )
    return made.model_copy(update={"identity": identity, "metrics": metrics})


def answered(picture: str = "") -> AnsweredSplit:
    worst = AnswerExample(
        id="q7", medium="seven.png", question="How many | shapes?", options=("1", "2", "3", "<b>4"),
        truth="b", answer="d", confidence=0.97, kind="counting", picture=picture,
    )  # fmt: skip
    return AnsweredSplit(
        split="quiz",
        confusion=((40, 5, 3, 2), (1, 49, 0, 0), (0, 0, 50, 0), (0, 0, 0, 0)),
        reliability=((0.0, 0.5, 0, None, None), (0.5, 1.0, 150, 0.8, 139 / 150)),
        kinds={"colour": (50, 49), "counting": (100, 90)},
        worst=(worst,),
    )


def view(make, answers=None) -> SuiteView:
    records = (fold(make, 1, 0.51), fold(make, 2, 0.52), fold(make, 3, 0.53), together(make))
    return SuiteView(name="s", records=records, answers=answers or {})


def test_runs_of_a_split_stand_side_by_side(make):
    shown = render_markdown(vqa.run_table(view(make).records, "quiz"))
    rows = [line for line in shown.splitlines() if line.startswith("| `0")]
    assert len(rows) == 4
    assert "1/3" in rows[0]
    assert "| 0.510 [0.460, 0.560] |" in rows[0], "bold would say better than others"
    assert "0.250 [0.100, 0.300]" in rows[0]
    assert "0.500 (n = 32)" in rows[0]
    assert "ensemble" in rows[3]
    assert rows[3].count("–") >= 5
    assert "gain by TTA" not in shown  # nobody used it
    assert "chance is 0.250" in shown


def test_the_most_frequent_answer_alone_is_a_row(make):
    records = view(make).records
    answers = {r.identity.run_id: (answered(),) for r in records[:2]}
    last = [cell.text for cell in vqa.run_table(records, "quiz", "en", answers).rows[-1]]
    assert last[:4] == ["always a, the most frequent answer", "–", "150", "0.333"]
    moved = answered().model_copy(update={"confusion": ((1, 0, 0, 0), (0, 0, 0, 3))})
    rows = vqa.run_table(
        records, "quiz", "en", {**answers, records[0].identity.run_id: (moved,)}
    ).rows
    assert [[cell.text for cell in row[1:4]] for row in rows[-2:]] == [
        ["1/3", "4", "0.750"], ["2/3", "150", "0.333"],
    ]  # fmt: skip


def test_a_vote_is_only_better_when_its_interval_says_so(make):
    table = vqa.ensemble_table(together(make), "quiz")
    assert table is not None
    verdicts = {row[0].text: row[-1].text for row in table.rows}
    assert verdicts == {
        "fold 1": "–", "fold 2": "–", "fold 3": "–", "majority": "not distinguishable",
        "mean probability": "better", "stacked": "worse",
    }  # fmt: skip
    shown = render_markdown(table)
    assert "+0.080 [0.030, 0.130]" in shown
    assert "majority: over fold 2, the best on its own held-out rows" in shown
    assert "over the mean fold: +0.080 [0.050, 0.110]." in shown
    assert vqa.ensemble_table(fold(make, 1, 0.5), "quiz") is None


def test_held_out_rows_show_stacking_against_single_models(make):
    table = vqa.ensemble_table(together(make), "out-of-fold")
    assert table is not None
    assert [row[0].text for row in table.rows] == ["single models", "stacked"]
    assert "ECE 0.031; decrease +0.012 [0.004, 0.020]: better." in render_markdown(table), (
        "a temperature is no way to answer, and what it did is said"
    )


def test_errors_are_shown_once_and_of_the_ensemble(make, tmp_path):
    picture = tmp_path / "seven.png"
    picture.write_bytes(png())
    given = answered(str(picture))
    made = view(make, {"01-vqa-f1": (answered(),), "04-vqa-ensemble": (given,)})
    out = tmp_path / "report"
    written = report.write(made, out, figures=False)
    text = (out / "report.md").read_text()
    assert text.count("Error analysis: ") == 1
    assert "Error analysis: `04-vqa-ensemble` on `quiz`" in text
    assert r"How many \| shapes?" in text
    assert r"d. \<b\>4" in text
    assert '<img src="pictures/' in text
    assert len(written) == 2
    assert "| a | **40** | 5 | 3 | 2 | 80.0 % |" in text
    assert text.index("| counting |") < text.index("| colour |")  # most errors first
    assert "| 0.50–1.00 | 150 | 80.0 % | 92.7 % |" in text


def test_without_pictures_there_is_the_mediums_name(make, tmp_path):
    text = report.render(view(make, {"04-vqa-ensemble": (answered("/gone.png"),)}))
    assert "`seven.png`" in text
    assert not (Path(tmp_path) / "pictures").exists()


def test_both_languages_have_every_word(make):
    made = view(make, {"04-vqa-ensemble": (answered(),)})
    korean = report.render(made, "ko")
    assert "오답 분석" in korean
    assert "구별 안 됨" in korean


def test_other_tables_leave_vqa_alone(make):
    text = report.render(view(make))
    assert text.count("## Answers to questions") == 1
    assert "recall@1" not in text
    assert "accuracy[fold 1]" not in text
