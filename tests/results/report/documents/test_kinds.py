"""Every kind of report, of the same two suites, in both languages; and what each begins with."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from results import report
from results.comparison import history
from results.comparison.document_view import (
    KINDS,
    DocumentView,
    JudgedCriterion,
    ReportPeriod,
    SuitePart,
    merge_suites,
    qualify_run_ids,
)
from results.records import published_runs
from results.records.suite_view import (
    REPORT_FORMS,
    AuditRow,
    RunWords,
    SuiteView,
    SuiteWords,
)
from results.report import __main__ as child
from results.report.documents.run_titles import main_runs, title_of_run, title_of_runs
from results.report.html import render_html
from results.report.latex import render_latex
from results.text.translations import LANGS
from tests.results.report.korean_sources import english

GOLDEN = Path(__file__).parents[1] / "golden"
TITLES = {"en": "no EOS", "ko": "EOS 없음"}
FAULT = AuditRow(
    code="no-end-token", standing="fault", severity="error", runs=("E5-v3",), title=TITLES,
    evidence={"en": "97 of 97", "ko": "97개 중 97개"}, remedy={"en": "add it", "ko": "추가"},
)  # fmt: skip


@pytest.fixture
def document(mixed, study):
    """A week of two suites, one of them with a run that failed and one that is planned."""
    mixed = mixed.model_copy(update={
        "name": "20261124-090000-demo-1a2b",
        "records": tuple(r.model_copy(update={"identity": r.identity.model_copy(update={
            "suite": "20261124-090000-demo-1a2b"}), "ended_wall": 1_795_266_400.0})
            for r in mixed.records),
        "planned": (mixed.records[0].identity.model_copy(update={
            "run_id": mixed.pending[0], "subset": "emoji_mm_train", "model": "effnet-minilm",
            "label": ""}),),
    })  # fmt: skip
    study = study.model_copy(update={
        "planned": (), "audit": (FAULT,),
        "run_words": {"02-captioning-E5-v3": RunWords(
            expected="no mode collapse", criteria=("diversity > 0.5",), conclusion="collapsed",
            next_steps=("Linear",))},
    })  # fmt: skip
    views = [mixed, study]
    ids = qualify_run_ids({v.name: [r.identity.run_id for r in v.records] for v in views})
    records = [r for v in views for r in v.records]
    old = [
        r.model_copy(
            update={
                "identity": r.identity.model_copy(update={"suite": "20261116-090000-demo-0000"}),
                "metrics": tuple(m.model_copy(update={"value": m.value - 0.1, "low": m.value - 0.12,
                    "high": m.value - 0.08}) for m in r.metrics),
            }
        )
        for r in mixed.records[:1]
    ]  # fmt: skip
    pairs = list(history.compare_with_baselines(records, records, {}, ids, None))
    words = SuiteWords(next_steps=("val, test 1 epoch",), reasons={"emoji_train": "small"})
    return DocumentView(
        kind="weekly",
        suite=merge_suites(views, words),
        parts=tuple(
            SuitePart(name=v.name, started_wall=v.started_wall, state=v.state, words=v.words,
                      plan_toml=v.plan_toml, runs=tuple(r.identity.run_id for r in v.records))
            for v in views
        ),
        period=ReportPeriod(first="2026-11-23", last="2026-11-29", earlier_first="2026-11-16",
                            earlier_last="2026-11-22"),
        note_target="week:2026-W48",
        earlier_runs=1,
        changes=tuple(history.compare_with_period(records, old, ids, None)),
        baselines=tuple(change for change, *_ in pairs),
        rankings=tuple(history.rank_runs(records, ids)),
        criteria={"02-captioning-E5-v3": (
            JudgedCriterion(text="diversity > 0.5", value=0.06, verdict="not met"),)},
    )  # fmt: skip


def of_kind(document, kind):
    period = document.period if kind == "weekly" else None
    return document.model_copy(update={"kind": kind, "period": period})


@pytest.mark.parametrize("lang", LANGS)
def test_golden(document, lang):
    """`UPDATE_GOLDEN=1` writes them anew; read the difference before it is committed."""
    shown = report.render(document, lang)
    path = GOLDEN / f"week.{lang}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_begins_with_its_result_in_every_form(document, kind, lang, tmp_path):
    page = report.render(of_kind(document, kind), lang)
    assert page.count("\n# ") == 0, "one title"
    headings = re.findall(r"^## (.+)$", page, flags=re.MULTILINE)
    assert headings[0] == {"en": "Summary", "ko": "요약"}[lang]
    summary = page[page.index(f"## {headings[0]}") : page.index(f"## {headings[1]}")]
    assert 1 <= len(re.findall(r"^- ", summary.partition("\n###")[0], flags=re.MULTILINE)) <= 5
    noted = re.sub("no mode collapse|CUDA out of memory", "", page)
    assert lang == "en" or not english(noted)
    html, tex = render_html(page, tmp_path, lang), render_latex(page)
    folded = 0 if kind == "suite" else 1
    assert html.count("<details>") == html.count("</details>") == folded
    assert "&lt;details" not in html + tex
    assert "details" not in tex
    assert not folded or page.index("`batch=64`") > page.index("<details>"), "settings: at the end"


def test_the_child_reads_a_document_and_names_the_report_of_a_run(document, tmp_path, capsys):
    (tmp_path / "view.json").write_text(of_kind(document, "run").model_dump_json())
    command = [str(tmp_path / "view.json"), "--out", str(tmp_path / "out"), "--no-figures"]
    assert child.main([*command, "--lang", "ko", "--form", "html"]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["REPORT.ko.md", "REPORT.ko.html"]
    assert (tmp_path / "out" / "REPORT.ko.md").read_text() == report.render(
        of_kind(document, "run"), "ko"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_heading_has_something_below_it(document, kind):
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(report.render(of_kind(document, kind)))
    blocks = [t for t in tokens if t.level == 0 and t.nesting >= 0]
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if block.type == "heading_open":
            assert after is not None
            assert after.type != "heading_open" or after.tag > block.tag, block.map


def test_a_suite_alone_may_have_no_record():
    for kind in KINDS:
        view = SuiteView(name="fresh", pending=("01-run",), state="running")
        page = report.render(DocumentView(kind=kind, suite=view))
        assert "01-run" in page


def test_what_only_a_person_knows_has_its_place_until_it_is_noted(document):
    page = report.render(document)
    assert (
        '**[to fill in]** Conclusion: `workbench results note week:2026-W48 --conclusion "…"`'
        in page
    )
    assert "- val, test 1 epoch\n" in page
    assert "--next" not in page, "a next step is noted"
    words = document.suite.words.model_copy(update={"conclusion": "**cheap** enough"})
    suite = document.suite.model_copy(update={"words": words})
    noted = report.render(document.model_copy(update={"suite": suite}))
    assert "## Conclusion\n\n> **cheap** enough\n" in noted
    assert "W48 --conclusion" not in noted


def test_a_week_without_earlier_runs_says_so(document):
    page = report.render(document.model_copy(update={"changes": (), "earlier_runs": 3}))
    assert "Nothing to compare: none of the 3 runs of those days" in page


def test_a_week_without_metrics_says_what_its_costs_did(document):
    changes = tuple(
        c.model_copy(update={"values": tuple(v for v in c.values if not v.split)})
        for c in document.changes
    )
    page = report.render(document.model_copy(update={"changes": changes}))
    assert "- Against 2026-11-16 – 2026-11-22, wall-clock (single readings): E1-v1 +0.0 %" in page


def test_an_experiment_is_judged_and_compared_with_its_version(document):
    page = report.render(of_kind(document, "study"))
    part = page[page.index("### E5-v3") :]
    assert "> no mode collapse\n" in part
    assert "| diversity &gt; 0.5" in part or "| diversity \\> 0.5 | 0.060 | not met |" in part
    assert "#### Compared with the previous version E5-v2" in part
    assert "`epochs` 5 → 10" in part
    assert "no EOS (`no-end-token`): 97 of 97. remedy: add it" in part
    assert "- Conclusion: collapsed\n- Next: Linear" in part
    assert "01-retrieval-emoji_train-clip-nano --conclusion" in page, "a place for the others'"


def test_public_scores_are_compared(document):
    change = document.baselines[-1].model_copy(update={"public_score": "0.805"})
    suite = document.suite.model_copy(update={
        "run_words": {change.run: RunWords(public_score="0.827")}})  # fmt: skip
    update = {"suite": suite, "baselines": (*document.baselines[:-1], change)}
    page = report.render(of_kind(document, "challenge").model_copy(update=update))
    assert "| public score | 0.805 | 0.827 | +0.022 | no interval |" in page
    assert re.search(r"\| E5-v3 .*\| 0\.827 \|", page)


def test_imported_runs_are_marked_wherever_they_stand():
    records = tuple(published_runs.read_published("siglip-study").records)
    view = SuiteView(name="published-siglip-study", state="imported", records=records)
    ids = qualify_run_ids({view.name: [r.identity.run_id for r in records]})
    pairs = history.compare_with_baselines(records, records, {}, ids, None)
    document = DocumentView(
        kind="study", suite=view, parts=(SuitePart(name=view.name, state="imported"),),
        rankings=tuple(history.rank_runs(records, ids)),
        baselines=tuple(change for change, *_ in pairs),
    )  # fmt: skip
    page = report.render(document)
    rows = [line for line in page.splitlines() if line.startswith(("| E5", "| E7", "| 1 | E"))]
    assert rows
    assert all("imported" in row for row in rows)
    assert "not measured here" in page
    assert "| 2 | 6 | 1.2581 | – | 0.0032 | 0.0600 | no improvement 3/3, early stop |" in page
    assert "Total, sequential: **about 11 h 56 min 0 s** (4:47:00 + 7:09:00)" in page
    assert "| 0 | 0 |" not in page, "unknown is never 0"
    assert page.index("All 3 experiments with scores collapsed") < page.index("Best by"), "first"
    names = "the study's experiment reports, January 2026|as published, split at blanks"
    assert not english(re.sub(names, "", report.render(document, "ko")))


def test_pruned_and_skipped_runs_are_no_failures(document):
    def end(cause):
        return tuple(
            r if r.exit.cause == "completed"
            else r.model_copy(update={"exit": r.exit.model_copy(update={"cause": cause})})
            for r in document.suite.records
        )  # fmt: skip

    for cause, counted in (("pruned", False), ("skipped", False), ("hung", True)):
        suite = document.suite.model_copy(update={"records": end(cause)})
        page = report.render(document.model_copy(update={"suite": suite}))
        assert (f"runs failed: {cause} 1" in page) is counted
        assert ("## Failures by cause" in page) is counted


def test_equal_ids_are_told_apart_by_their_suites(weekly):
    second = weekly.model_copy(update={"name": "20261201-090000-weekly-2222"})
    first = weekly.model_copy(update={"name": "20261124-090000-weekly-1111"})
    merged = merge_suites([first, second], SuiteWords())
    ids = [r.identity.run_id for r in merged.records]
    assert len(set(ids)) == 8
    assert ids[0] == "weekly-1111/01-retrieval-oven_train-tinyclip-61m"
    assert merged.notes[ids[0]] == weekly.notes["01-retrieval-oven_train-tinyclip-61m"]
    assert title_of_run(merged, ids[0]) == f"`{ids[0]}`"
    assert merge_suites([first]) == first, "one suite stays as it is"
    twin = second.model_copy(update={"name": "20261202-090000-weekly-1111"})  # 16 bits are equal
    ids = [r.identity.run_id for r in merge_suites([first, twin]).records]
    assert len(set(ids)) == 8
    assert ids[0] == "20261124-090000-weekly-1111/01-retrieval-oven_train-tinyclip-61m"


def test_a_fault_is_of_the_run_of_its_own_suite(study):
    """Two suites of a study have a run of one label each; the fault is of the first."""
    suites = [
        study.model_copy(update={
            "name": name, "planned": (), "audit": audit, "records": tuple(
                r.model_copy(update={"identity": r.identity.model_copy(update={"suite": name})})
                for r in study.records),
        })
        for name, audit in (("first-1111", (FAULT,)), ("second-2222", ()))
    ]  # fmt: skip
    page = report.render(DocumentView(kind="study", suite=merge_suites(suites, SuiteWords())))
    assert page.count("(`no-end-token`): 97 of 97") == 1
    assert "first-1111/E5-v3" in page
    assert merge_suites(suites[:1]).audit == (FAULT,)


@pytest.mark.parametrize(
    ("states", "state"),
    [
        (("imported", "imported"), "imported"),
        (("ended", "imported", "lost"), "ended"),
        (("ended", "queued"), "running"),
        (("lost", "lost"), "lost"),
    ],
)
def test_suites_together_run_only_where_one_does(weekly, states, state):
    views = [weekly.model_copy(update={"name": f"s{i}", "state": s}) for i, s in enumerate(states)]
    assert merge_suites(views).state == state


def test_folds_of_an_ensemble_are_one_experiment(make):
    folds = [make.record(f"0{n}", identity={"params": {"folds": 2, "fold": n}}) for n in (1, 2)]
    joined = make.record("03", identity={"task": "ensemble"})
    assert main_runs([*folds, joined]) == [joined]
    assert main_runs(folds) == folds
    others = [make.record(f"1{n}", identity={"params": {"folds": 2, "fold": n}, "model": "other"})
              for n in (1, 2)]  # fmt: skip
    assert main_runs([*folds, joined, *others]) == [joined, *others], "theirs is still to come"


def test_the_first_is_bold_only_if_all_others_are_worse(document):
    (ranking, *_) = document.rankings
    for verdict, kind in (("worse", "strong"), ("not distinguishable", "value")):
        places = (ranking.places[0], *(p.model_copy(update={"verdict": verdict})
                                       for p in ranking.places[1:]))  # fmt: skip
        tested = ranking.model_copy(update={"places": places})
        page = report.render(document.model_copy(update={"rankings": (tested,)}))
        best = ranking.places[0]
        value = f"{best.value:.3f} [{best.low:.3f}, {best.high:.3f}]"
        assert (f"| **{value}** |" in page) == (kind == "strong")
        assert "**Bold**: better than every other run" in page or kind == "value"


def test_seeds_have_the_name_that_they_share(document):
    first, *others = document.suite.records
    runs = [
        first.model_copy(update={"identity": first.identity.model_copy(
            update={"run_id": f"{seed:02d}-x", "seed": seed, "label": ""})})
        for seed in (1, 2, 3)
    ]  # fmt: skip
    view = document.suite.model_copy(update={"records": (*runs, *others), "planned": ()})
    names = [r.identity.run_id for r in runs]
    assert title_of_runs(view, names, "en") == "`emoji_train` · `clip-nano` (3 seeds)"
    assert title_of_runs(view, names[:1], "en") == "`01-x`", "one of three seeds has no such name"


@pytest.mark.parametrize("kind", ["weekly", "challenge"])
def test_every_form_of_the_same_records_has_the_same_bytes(document, kind, tmp_path):
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        report.write(of_kind(document, kind), folder, "ko", forms=REPORT_FORMS, figures=False)
        files = (path for path in folder.rglob("*") if path.is_file())
        written.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert written[0] == written[1]
    endings = {"".join(path.suffixes[-1:]) for path in written[0]}
    assert endings == {".md", ".html", ".tex", ".zip", ".csv", ".parquet"}


def test_a_challenge_begins_with_its_best_public_score(document):
    runs = [r.identity.run_id for r in document.suite.records][:3]
    scores = dict(zip(runs, ("0.805", "0.924", "pending"), strict=True))
    words = {run: RunWords(public_score=score) for run, score in scores.items()}
    suite = document.suite.model_copy(update={"run_words": words})
    page = report.render(document.model_copy(update={"kind": "challenge", "suite": suite,
                                                     "period": None}))  # fmt: skip
    summary = page[page.index("## Summary") :]
    first, second = (title_of_run(suite, run) for run in (runs[1], runs[0]))
    assert summary.startswith(
        f"## Summary\n\n- Best public score: **{first}** 0.924; next: {second} 0.805\n"
    )
    assert "Best public score" not in report.render(document)


def test_findings_have_a_place_in_a_study_of_captions_alone(study):
    unnoted = study.model_copy(update={"notes": {}})
    command = '**[to fill in]** finding: `workbench results note RUN --finding "…"`'
    assert command in report.render(DocumentView(kind="study", suite=unnoted))
    runs = [*(r.identity.run_id for r in study.records), *(i.run_id for i in study.planned)]
    noted = study.model_copy(update={"notes": dict.fromkeys(runs, ("seen",))})
    assert command not in report.render(DocumentView(kind="study", suite=noted))
