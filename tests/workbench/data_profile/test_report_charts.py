"""What a subset holds, as bars in a report."""

from __future__ import annotations

from pathlib import Path

import pytest

from datasets_mm.profile.profile import ChoiceProfile, FieldProfile, Profile
from results import report
from results.records.suite_view import SuiteView
from workbench.data_profile import profile_process, report_charts


def questions() -> Profile:
    return Profile(
        name="vqa_train", kind="subset", form="choices", place="x", records=10,
        fields=(FieldProfile(name="question", types={"text": 10}, filled=10),),
        questions={"what": 7, "how": 3},
        choices=ChoiceProfile(answers={"a": 1, "b": 2, "c": 3, "d": 4}, kinds={"colour": 10}),
    )  # fmt: skip


def test_counts_of_one_whole_become_bars() -> None:
    found = {chart.title: chart.bars for chart in report_charts.charts_of_profile(questions())}
    assert found["right answer"] == (("a", 1), ("b", 2), ("c", 3), ("d", 4))
    assert found["first WH-word of the question"] == (("what", 7), ("how", 3))
    assert "duplicates" not in found
    passages = Profile(
        name="p", kind="jsonl", place="x", records=4, candidates={1: 2, 3: 1, 12: 1},
        questions={"what": 4},
    )  # fmt: skip
    bars = {chart.title: dict(chart.bars) for chart in report_charts.charts_of_profile(passages)}
    shares = bars["candidate passages per record"]
    assert (sum(shares.values()), shares["1"], shares["3"]) == (4, 2, 1), "no mean among them"


def test_a_report_draws_them_and_says_what_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="the [reports] extra is not installed")
    wanted: list[profile_process.ProfileRequest] = []

    def make(one: profile_process.ProfileRequest, _say: object) -> Profile:
        wanted.append(one)
        if one.target == "lost":
            raise profile_process.ProfileError("lost: its data are not here")
        return questions()

    monkeypatch.setattr(profile_process, "make_profile", make)
    said: list[str] = []
    records = [_record("vqa_train"), _record("vqa_train"), _record("lost")]
    shown = report_charts.charts_of_runs([one.identity for one in records], said.append)
    assert [(one.target, one.data_root) for one in wanted] == [
        ("vqa_train", Path("/data")), ("lost", Path("/data")),
    ]  # fmt: skip
    assert any("its data are not here" in line for line in said)
    written = report.write(SuiteView(name="s", charts=shown), tmp_path, "ko")
    assert {path.name for path in written} == {"report.ko.md", "data.svg", "data.png"}
    assert "![데이터셋 분포(EDA)](figures.ko/data.svg)" in written[0].read_text("utf-8")
    again = report.write(SuiteView(name="s", charts=shown), tmp_path / "again", "ko")
    assert again[1].read_bytes() == written[1].read_bytes()


def _record(subset: str):
    from results.records.schema import Exit, Identity, MemoryUse, Reading, RunRecord, TimingRecord

    nothing = Reading(reason="not measured")
    timing = {n: nothing for n, f in TimingRecord.model_fields.items() if f.is_required()}
    return RunRecord(
        identity=Identity(
            suite="s", run_id="01", engine="vqa", task="train", subset=subset, model="m",
            params={"data_root": "/data"},
        ),
        environment={}, timing=TimingRecord(**timing),
        memory=MemoryUse(**dict.fromkeys(MemoryUse.model_fields, nothing)),
        exit=Exit(cause="completed", code=0),
    )  # fmt: skip
