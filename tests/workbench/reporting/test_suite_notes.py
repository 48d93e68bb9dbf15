"""Reasons, title and goal of a plan, and what notes make of them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from results import report
from results.comparison.document_view import DocumentView
from results.records.notes import RunNotes
from results.records.suite_view import RunWords, SuiteView
from workbench.planning import expand, plan
from workbench.reporting import suite_notes

TOLD = """
subsets = ["emoji_train", "emoji_mm_train"]
models = ["clip-nano"]
title = "Weekly Report"
goal = "what an epoch costs"
[why]
emoji_train = "large"
clip-nano = "small enough"
[[variant]]
label = "E5-v2"
why = "lower rate"
expected = "no mode collapse"
criteria = ["diversity > 0.5", "METEOR >= previous"]
baseline = "E5"
"""


CHANGES = """
subsets = "emoji_train"
models = "clip-nano"
[[change]]
title = "AMP without the deprecated path"
purpose = "no warnings"
before = "torch.cuda.amp.autocast()"
after = "with torch.amp.autocast('cuda'):\\n    train()\\n"
applied_in = "v2"
"""


def test_changes_of_code_are_in_the_report_and_in_no_hash(tmp_path: Path) -> None:
    asked = plan.parse(tomllib.loads(CHANGES))
    bare = plan.parse({"subsets": "emoji_train", "models": "clip-nano"})
    assert asked.hash() == bare.hash()
    (tmp_path / "plan.toml").write_text(CHANGES + '[[change]]\npurpose = "no title"\n')
    (change,) = suite_notes.read_code_changes(tmp_path)
    view = SuiteView(name="s", code_changes=(change,))
    page = report.render(DocumentView(kind="study", suite=view), "ko")
    shown = page[page.index("## 코드 변경 사항") :]
    assert page.index("<details>") < page.index("## 코드 변경 사항"), "folded"
    assert "- 목적: no warnings\n- 적용 버전: v2" in shown
    assert "**변경 전**\n\n```python\ntorch.cuda.amp.autocast()\n```" in shown
    assert "```python\nwith torch.amp.autocast('cuda'):\n    train()\n```" in shown


def test_texts_of_a_plan_and_of_notes(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(TOLD)
    noted = RunNotes(title="Another title", reasons={"emoji_train": "largest", "": "both sides"})
    found = suite_notes.collect_words(tmp_path, noted)
    assert (found.title, found.goal) == ("Another title", "what an epoch costs")
    assert found.reasons == {
        "emoji_train": "largest", "clip-nano": "small enough", "E5-v2": "lower rate",
        "": "both sides",
    }  # fmt: skip
    (tmp_path / "plan.toml").write_text('why = "all of it"\nvariant = 3 ]')
    assert suite_notes.collect_words(tmp_path, RunNotes()).reasons == {}, "a torn plan has no words"
    (tmp_path / "plan.toml").write_text('why = "all of it"')
    assert suite_notes.collect_words(tmp_path, RunNotes()).reasons == {"": "all of it"}


def test_what_was_expected_of_a_run_stands_in_its_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(f'criteria = "loss < 2"\nexpected = "fast"\n{TOLD}')
    noted = {"02": RunNotes(conclusion="collapsed", public_score="0.8")}
    words = suite_notes.collect_run_words(tmp_path, {"01": "E5-v2", "02": ""}, noted)
    assert words["01"] == RunWords(
        expected="no mode collapse", baseline="E5",
        criteria=("diversity > 0.5", "METEOR >= previous", "loss < 2"),
    )  # fmt: skip
    assert words["02"] == RunWords(
        expected="fast", criteria=("loss < 2",), conclusion="collapsed", public_score="0.8"
    )
    (tmp_path / "plan.toml").write_text('criteria = ["nonsense", 3]\n')
    assert suite_notes.collect_run_words(tmp_path, {"01": ""}, {}) == {}, "an old plan, now invalid"


def test_a_criterion_that_is_none_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(TOLD.replace("diversity > 0.5", "diversity high"))
    with pytest.raises(plan.PlanError, match=r"criteria.*'diversity high' is no criterion; write"):
        plan.load(tmp_path / "plan.toml")


def test_the_plan_keeps_its_texts_and_its_hash(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(TOLD)
    told = plan.load(path)
    path.write_text(plan.dump(told))
    assert plan.load(path) == told
    bare = told.model_copy(update={"title": "", "goal": "", "why": ""})
    silent = {"why": "", "expected": "", "criteria": (), "baseline": ""}
    variants = tuple(v.model_copy(update=silent) for v in told.variants)
    assert bare.model_copy(update={"variants": variants}).hash() == told.hash()


def test_a_reason_for_what_the_plan_does_not_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(TOLD.replace("emoji_train = ", "emoji_trian = "))
    with pytest.raises(plan.PlanError, match=r"why: 'emoji_trian' is no subset.*emoji_train"):
        expand.expand(plan.load(path), tmp_path)


def test_recipes_tell_title_and_notes() -> None:
    found = suite_notes.read_recipe_words(["okvqa_mm_train", "okvqa_mm_train", "no_such_subset"])
    assert list(found) == ["okvqa_mm_train"]
    assert found["okvqa_mm_train"].title == "OK-VQA of M2KR, train: pictures on both sides"
