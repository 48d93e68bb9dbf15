"""The data of a report, and `--lang` of the commands that print it, from made profiles."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datasets_mm.profile.profile import (
    ChoiceProfile,
    FieldProfile,
    LengthProfile,
    NumberProfile,
    PassageProfile,
    PictureProfile,
    Profile,
    SizeProfile,
    TokenProfile,
)
from datasets_mm.recipes.recipe import FIELDS
from results import report
from results.records.schema import Identity
from results.records.suite_view import SubsetCheck, SuiteView
from tests.results.report.korean_sources import english
from workbench.cli.main import app
from workbench.data_profile import profile_process, report_checks
from workbench.memory_estimate import table as fit_tables
from workbench.memory_estimate.plan_estimate import StepCounts

HANGUL = re.compile("[가-힣]")


def profile(name: str, records: int, two: int, **more: object) -> Profile:
    lengths = LengthProfile(
        n=records, mean=20.0, median=19, p95=40, longest=77, truncated=0.01, histogram=(records,)
    )
    return Profile(
        name=name,
        kind="subset",
        place="x.jsonl",
        records=records,
        lines=records,
        fields=tuple(FieldProfile(name=field, filled=records) for field in FIELDS),
        candidates={1: records - two, 2: two},
        questions={"what": records // 2, "which": records // 4, "other": 1},
        tokens=TokenProfile(tokenizer="CLIP", context=77, step=8, query=lengths, passage=lengths),
        passages=PassageProfile(references=records, distinct_ids=records),
        corpus_rows=114_810,
        expected_rows=records,
        **more,
    )


ORIGINAL = profile("infoseek_train", 676_441, 201_000)
BALANCED = profile("infoseek_bal76k_train", 76_265, 30_209)


def test_the_original_against_the_balanced_is_a_part_of_the_report() -> None:
    view = SuiteView(name="s", comparisons=(report_checks.compare_profiles(ORIGINAL, BALANCED),))
    page = report.render(view, "ko")
    assert "## `infoseek_train`과 `infoseek_bal76k_train` 차이" in page
    assert "스키마 동일: 9개 필드(answer, data" in page
    assert "샘플 수: 676,441 → 76,265 (앞 데이터셋의 11.3 %)" in page
    assert "| 2-3 | 201,000 (29.71 %) | 30,209 (39.61 %) | +9.90 |" in page
    assert "| 샘플 수 | 676,441 | 76,265 | × 0.113 |" in page
    english = report.render(view)
    assert "Schema equal: the same 9 fields" in english
    assert "candidate passages" in english


def test_the_full_check_is_a_part_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.results.conftest import record

    scanned: list[profile_process.ProfileRequest] = []

    def make(wanted: profile_process.ProfileRequest, say: object) -> Profile:
        scanned.append(wanted)
        return profile(wanted.target, 8_253, 100)

    monkeypatch.setattr(profile_process, "make_profile", make)
    runs = [
        record(identity={"subset": "okvqa_mm_train", "params": {"data_root": "/data"}}),
        record("02", identity={"subset": "okvqa_mm_train"}),
    ]
    said: list[str] = []
    identities = [run.identity for run in runs]
    checks = report_checks.check_subsets(identities, said.append, report_checks.ReadProfiles())
    assert said == ["okvqa_mm_train: full check …"]
    assert [(w.target, w.data_root) for w in scanned] == [("okvqa_mm_train", Path("/data"))]
    page = report.render(SuiteView(name="s", checks=checks), "ko")
    fields = "question, image_path, passage_text, passage_image_path, passage_id"
    sentence = f"전체 8,253개 레코드 전수 검사: 필드 결측 0 ({fields}) – 문제 없음"
    assert f"- `okvqa_mm_train`: {sentence}" in page
    torn = SubsetCheck(subset="s", sentence="", problems=("3 × question is missing: line 4",))
    assert "3건: question 결측: line 4" in report.render(SuiteView(name="s", checks=(torn,)), "ko")


def test_a_weekly_report_has_the_checks_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.results.conftest import record

    def make(wanted: profile_process.ProfileRequest, say: object) -> Profile:
        assert wanted.cached
        assert "--cached" in wanted.command()
        if wanted.target == "unknown":
            raise profile_process.ProfileError("'unknown' was not described")
        return profile(wanted.target, 8_253, 100)

    monkeypatch.setattr(profile_process, "make_profile", make)
    runs = [record(identity={"subset": name}).identity for name in ("unknown", "okvqa_mm_train")]
    said: list[str] = []
    read = report_checks.ReadProfiles()
    checks = report_checks.check_subsets(runs, said.append, read, cached=True)
    assert [check.subset for check in checks] == ["okvqa_mm_train"]
    assert said == [], "nothing is scanned"


@pytest.fixture
def scan(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    known = {"a": ORIGINAL, "b": BALANCED}
    monkeypatch.setattr(profile_process, "make_profile", lambda wanted, say: known[wanted.target])
    return CliRunner()


def test_commands_about_data_speak_korean(scan: CliRunner) -> None:
    shown = scan.invoke(app, ["data", "diff", "a", "b", "--lang", "ko"])
    assert shown.exit_code == 0, shown.output
    for words in ("레코드당 후보 passage 수", "질문의 WH 타입", "차이", "× 0.113"):
        assert words in shown.output
    assert "difference" in scan.invoke(app, ["data", "diff", "a", "b"]).output, "and back"
    described = scan.invoke(app, ["data", "describe", "a", "--lang", "ko"]).output
    assert "전수 스캔" in described
    checked = scan.invoke(app, ["data", "check", "b", "--lang", "ko"]).output
    assert "전체 76,265개 레코드 전수 검사: 필드 결측 0" in checked
    assert "infoseek_bal76k_train: 문제 없음" in checked
    assert scan.invoke(app, ["data", "check", "b", "--lang", "fr"]).exit_code == 2


SPREAD = NumberProfile(lowest=200, median=300, p95=400, highest=500, mean=310.0)
QUIZ = profile("quiz", 90, 0).model_copy(
    update={
        "form": "choices",
        "choices": ChoiceProfile(answers={"a": 40, "b": 49, "": 1},
                                 kinds={"how many": 30, "yes/no": 30, "other": 30}),
        "pictures": PictureProfile(
            root="/i", distinct=90, opened=90, lost={"missing": 2},
            unusable={"truncated or damaged (no end mark, or a wrong check sum)": 1},
            alike=40, alike_example="a.png",
            sizes=SizeProfile(width=SPREAD, height=SPREAD, tokens={512: SPREAD}, step=32,
                              histogram=(0, 90)),
        ),
        "left_out": {"row names no picture": 3, "row has no question": 2},
        "left_out_examples": {"row names no picture": ("row 7",)},
        "refused": {"line is not JSON": 1},
    }
)  # fmt: skip
SPOKEN = profile("spoken", 90, 12).model_copy(update={"form": "captions"})
NAMES = frozenset(("what", "which", "1", "2-3", "4-10", "11+", "a", "b", "c", "d"))


@pytest.mark.parametrize("found", [[ORIGINAL, BALANCED], [QUIZ], [SPOKEN]], ids=range(3))
def test_every_label_of_a_profile_has_its_korean(found: list[Profile]) -> None:
    from results.records.message_translations import localize
    from workbench.data_profile.sections import build_sections
    from workbench.data_profile.tables import schema_table

    for section in build_sections(found):
        for text in (section.title, section.remark, *(row.label for row in section.rows)):
            shown = localize(text, "ko")
            assert not text or text in NAMES or HANGUL.search(shown), text
            assert not english(shown), shown
    titles = [column.title for column in schema_table(found[0]).columns]
    assert all(HANGUL.search(localize(t, "ko")) for t in titles if t not in ("null", '"NA"'))


@pytest.mark.parametrize("found", [ORIGINAL, QUIZ, SPOKEN], ids=["passages", "choices", "captions"])
def test_every_problem_and_remark_of_a_check_has_its_korean(found: Profile) -> None:
    from datasets_mm.profile import check
    from results.records.message_translations import localize

    said = [problem.sentence() for problem in check.find_problems(found, ["answer"])]
    said += [check.missing_sentence(found), *check.find_remarks(found)]
    assert said
    for text in said:
        shown = localize(text, "ko")
        assert HANGUL.search(shown), text
        assert not english(shown), shown


def test_a_refusal_is_korean(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(wanted: profile_process.ProfileRequest, say: object) -> Profile:
        raise profile_process.ProfileError(
            f"{wanted.target!r} is neither a file nor a subset; known: a"
        )

    monkeypatch.setattr(profile_process, "make_profile", make)
    shown = CliRunner().invoke(app, ["data", "check", "x", "--lang", "ko"])
    assert shown.exit_code == 2
    assert "'x'는 파일도 서브셋도 아님. 가능한 값: a" in shown.output
    with_field = ["data", "check", "x", "--require", "y", "--lang", "ko"]
    assert "없는 필드. 가능한 값: answer" in CliRunner().invoke(app, with_field).output


def test_a_plan_says_what_keeps_training_steady_in_both_languages() -> None:
    from results.records.message_translations import localize
    from workbench.memory_estimate import checklist

    params = {
        "max_grad_norm": 0.3, "weight_decay": 0.01, "warmup_ratio": 0.1, "early_stopping": True,
        "monitor": "accuracy", "patience": 1, "load_best": True, "eval_batch_size": 6,
        "max_new_tokens": 16, "infer_on": "vqa_challenge_test",
    }  # fmt: skip
    lines = checklist.setting_lines(params)
    assert lines[0].endswith("`max_grad_norm=0.3`, `weight_decay=0.01`, `warmup_ratio=0.1`")
    assert [localize(line, "ko").partition(":")[0] for line in lines] == [
        "학습 안정화", "조기 종료", "추론",
    ]  # fmt: skip
    assert "vqa_challenge_test의 모든 행에 답하며" in localize(lines[2], "ko")
    assert not english(localize(lines[2], "ko"))
    off = checklist.setting_lines({"early_stopping": False})
    assert localize(off[0], "ko") == "조기 종료: 사용하지 않음"
    assert checklist.setting_lines({"epochs": 1}) == []


def test_a_plan_speaks_korean() -> None:
    from results.records.message_translations import localize, localize_table
    from results.text.table import render_markdown

    steps = StepCounts(rows=3887, train=3498, held_out=389, batch=2,
                       gradient_accumulation_steps=8, per_epoch=219,
                  total=657, epochs=3, ranks=1, looked_at=256)  # fmt: skip
    page = render_markdown(localize_table(fit_tables.steps_table(steps, {}), "ko"))
    for words in ("| 학습 | 3,498 |", "| 검증셋 | 389 |", "| epoch당 optimizer step | 219 |",
                  "| optimizer step, 3 epoch | 657 |"):  # fmt: skip
        assert words in page
    verdict = "fits on A10G: 5.5 of 22.2 GiB in training, 16.7 left"
    assert localize(verdict, "ko") == (
        "OOM 위험 낮음: A10G 22.2 GiB 중 학습에 5.5 GiB, 여유 16.7 GiB"
    )


def test_a_subset_that_is_not_built_has_no_profile_and_none_is_built_to_find_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(profile_process, "run_child", lambda *_: pytest.fail("a child"))
    with pytest.raises(profile_process.ProfileError, match="'emoji_train' was not described"):
        profile_process.make_profile(
            profile_process.ProfileRequest("emoji_train", cached=True), lambda *_: None
        )
    assert not list(tmp_path.iterdir())


def _identity(subset: str) -> Identity:
    return Identity(suite="s", run_id=subset, engine="e", task="train", subset=subset, model="m")


def test_selected_subsets_have_originals_and_parts_of_a_split_have_none() -> None:
    names = ("infoseek_bal76k_train", "okvqa_mm_train", "okvqa_bal_train", "emoji_train",
             "oven_train", "path:/no/recipe", "okvqa_mm_train")  # fmt: skip
    assert report_checks.find_originals([_identity(name) for name in names]) == [
        ("infoseek_train", "infoseek_bal76k_train"), ("okvqa_train", "okvqa_mm_train"),
        ("okvqa_train", "okvqa_bal_train"),
    ]  # fmt: skip


def test_an_original_that_is_not_here_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    scans: list[tuple[str, bool]] = []

    def make(request: profile_process.ProfileRequest, _: object) -> Profile:
        scans.append((request.target, request.cached))
        if request.cached or request.target == "infoseek_train":
            raise profile_process.ProfileError(f"{request.target}: its data are not here")
        return profile(request.target, 100, 20)

    monkeypatch.setattr(profile_process, "make_profile", make)
    messages: list[str] = []
    subsets = ("infoseek_bal76k_train", "okvqa_mm_train", "okvqa_bal_train")
    runs, read = [_identity(subset) for subset in subsets], report_checks.ReadProfiles()
    lost, compared, _ = report_checks.compare_originals(runs, messages.append, read)
    command = "`workbench data describe infoseek_train`"
    assert lost.problem == f"infoseek_train cannot be read here, {command} says why"
    assert compared.records == (100, 100)
    assert not compared.problem
    assert ("okvqa_train", True) in scans, "a profile that is there is used before a scan"
    assert len(scans) == len(set(scans)), "each is a process of its own: once"
    assert "infoseek_bal76k_train" not in dict(scans), "there is nothing to compare it with"
    assert read.has_scanned
    page = report.render(SuiteView(name="s", comparisons=(lost, compared)), "en")
    assert "n/a (infoseek_train cannot be read here" in page
    assert "infoseek_train: its data are not here" in messages
    korean = report.render(SuiteView(name="s", comparisons=(lost, compared)), "ko")
    assert not english(korean[korean.index("infoseek_train") :].partition("## ")[0])
