"""Whole reports: goldens, the same bytes everywhere, figures, and the child that writes them."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from results import report
from results.comparison.document_view import DocumentView
from results.records.suite_view import AuditRow, RecipeWords, RunCurves, SuiteView, SuiteWords
from results.report import sections
from results.text.translations import LANGS

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("name", ["weekly", "mixed", "study"])
def test_golden(request, name, lang, tmp_path):
    """`UPDATE_GOLDEN=1` writes them anew; read the difference before it is committed."""
    shown = report.render(request.getfixturevalue(name), lang)
    path = GOLDEN / f"{name}.{lang}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(shown, encoding="utf-8")
    assert shown == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("lang", LANGS)
def test_every_heading_of_a_report_has_something_below_it(mixed, weekly, lang):
    for view in (mixed, weekly, SuiteView(name="empty")):
        tokens = MarkdownIt("commonmark").enable("table").parse(report.render(view, lang))
        blocks = [t for t in tokens if t.level == 0 and t.nesting >= 0]
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            if block.type == "heading_open":
                assert after is not None
                deeper = after.type == "heading_open" and after.tag > block.tag
                assert deeper or after.type != "heading_open", block.map


@pytest.mark.parametrize("name", ["weekly", "mixed", "study"])
def test_the_summary_is_a_part_of_the_report_in_its_order(request, name):
    view = request.getfixturevalue(name)
    whole, summary = iter(report.render(view).splitlines()), report.render_summary(view)
    assert all(line in whole for line in summary.splitlines())
    assert "### Result table" in summary
    assert "workbench run plan.toml" not in summary


def test_a_suite_without_records_has_a_report():
    page = report.render(SuiteView(name="fresh", pending=("01-run",), state="running"))
    assert "- Not ended yet: `01-run`." in page
    assert "completed" not in page


def test_a_long_plan_and_hostile_names_stay_in_place(mixed):
    plan = 'name = "x"\n```\n# injected\n<script>\x1b]0;title\x07'
    noted = {"": ("<img src=http://a/b> | ![x](y)",)}
    view = mixed.model_copy(update={"plan_toml": plan, "name": "<b>|`", "notes": noted})
    page = report.render(view)
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    inline = [child for token in tokens for child in (token.children or [])]
    kinds = {token.type for token in (*tokens, *inline)}
    assert not kinds & {"html_block", "html_inline", "image", "link_open"}
    assert tokens[-1].type == "fence"
    assert "# injected" in tokens[-1].content
    assert "\x1b" not in page


@pytest.mark.parametrize(("lang", "line"), [
    ("en", "| error | no EOS **[no-end-token]** | E1 | 97 of 97 | add \\| it |"),
    ("ko", "| 오류 | EOS 없음 **[no-end-token]** | E1 | 97개 | 추가 |"),
])  # fmt: skip
def test_the_audit_has_its_faults_and_the_rules_without(weekly, lang, line):
    texts = [{"en": "no EOS", "ko": "EOS 없음"}, {"en": "97 of 97", "ko": "97개"},
             {"en": "add | it", "ko": "추가"}]  # fmt: skip
    fault, clean = (
        AuditRow(
            code=code, standing=standing, severity="error", runs=("E1",), title=texts[0],
            evidence=texts[1], remedy=texts[2],
        )
        for code, standing in (("no-end-token", "fault"), ("padding", "impossible"))
    )  # fmt: skip
    shown = report.render(weekly.model_copy(update={"audit": (fault, clean)}), lang)
    assert line in shown
    assert f"| {'발생 불가' if lang == 'ko' else 'cannot occur'} | {texts[1][lang]} |" in shown


def test_facts_that_differ_name_their_subsets(make):
    found = [
        make.record(f"{subset}-run", identity={"subset": subset, "model": "m"},
                    facts={"precision": "fp32", "corpus": corpus})
        for subset, corpus in (("a", "10 passages"), ("b", "20 passages"), ("c", "10 passages"))
    ]  # fmt: skip
    lines = [line.strip() for line in sections.models(found, "en").splitlines()]
    assert lines[1:] == [
        "- precision: fp32", "- corpus (`a`, `c`): 10 passages", "- corpus (`b`): 20 passages",
    ]  # fmt: skip


def test_settings_are_fixed_or_differ(make, mixed):
    fixed = sections.fixed_settings(mixed.records, "en")
    assert "`batch=64`" in fixed
    assert "epochs" not in fixed
    table = sections.differing_settings(mixed.records, "en")
    assert "| `01-retrieval-emoji_train-clip-nano` | `4` | `0.0005` |" in table
    other = make.record("09-run", identity={"engine": "vqa", "params": {"seed": 1, "fp16": None}})
    fixed = sections.fixed_settings([*mixed.records, other], "en")
    assert fixed.index("`retrieval`:") < fixed.index("`vqa`:")
    assert "- Not set: `fp16`" in fixed


def test_a_fact_that_differs_names_what_tells_the_runs_apart(make):
    def run(name, subset, label, monitor):
        identity = {"subset": subset, "model": "m", "label": label}
        return make.record(
            name, identity=identity, facts={"monitor": monitor, "optimizer": "AdamW"}
        )

    by_subset = [run("01", "a", "E1", "loss"), run("02", "b", "E1", "meteor")]
    assert "  - monitor (`a`): loss\n  - monitor (`b`): meteor\n" in sections.models(
        by_subset, "en"
    )
    by_label = [run("01", "a", "E1", "loss"), run("02", "a", "", "meteor")]
    text = sections.models(by_label, "en")
    assert "  - monitor (`E1`): loss\n  - monitor (`02`): meteor\n" in text
    assert "  - optimizer: AdamW\n" in text


def test_many_settings_that_differ_are_a_list_of_runs(make):
    def run(name, value):
        params = {f"s{n}": value for n in range(12)} | {"off": None}
        return make.record(name, identity={"params": params})

    text = sections.differing_settings([run("01-a", 1), run("02-a", 1), run("03-b", 2)], "en")
    lines = text.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["- `01-a`, `02-a`", "- `03-b`"]
    assert "`s11=2`" in lines[1]
    assert "off" not in text


def test_an_environment_that_changed_names_its_runs(mixed):
    second = mixed.records[1]
    moved = second.environment.model_copy(update={"cpu": "Other CPU"})
    records = [mixed.records[0], second.model_copy(update={"environment": moved})]
    page = sections.environment(records, "en")
    assert (
        "- CPU: Example CPU 2.8 GHz, 2 cores (`01-retrieval-emoji_train-clip-nano`); "
        "Other CPU, 2 cores (`02-retrieval-emoji_train-effnet-minilm`)"
    ) in page


def test_written_files(mixed, tmp_path):
    pytest.importorskip("matplotlib")
    written = report.write(mixed, tmp_path / "out")
    assert [str(p.relative_to(tmp_path / "out")) for p in written] == [
        "report.md", *(f"figures/{name}.{form}" for name in ("intervals", "loss", "memory")
                       for form in ("svg", "png")),
    ]  # fmt: skip
    page = written[0].read_text()
    for link in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", page):
        assert (written[0].parent / link).is_file()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["figures", "report.md"]


def test_figures_are_pictures_without_dates_or_fonts(mixed, tmp_path):
    pytest.importorskip("matplotlib")
    *_, svg, png = report.write(mixed, tmp_path)
    root = ET.parse(svg).getroot()
    assert root.tag.endswith("svg")
    drawn = svg.read_text()
    assert "<text" not in drawn
    assert not re.search(r"date|20\d\d-\d\d", drawn)
    with Image.open(png) as image:
        assert image.info["dpi"][0] == pytest.approx(200, abs=0.1)
        assert image.width > 800
        pixels = image.convert("RGB").getcolors(1 << 24)
    assert any(colour == (47, 111, 222) for _, colour in pixels)


def test_korean_names_are_not_drawn_as_boxes(mixed, tmp_path, recwarn):
    pytest.importorskip("matplotlib")
    records = tuple(
        r.model_copy(update={"identity": r.identity.model_copy(update={"subset": "한국어_$x$"})})
        for r in mixed.records
    )
    report.write(mixed.model_copy(update={"records": records}), tmp_path, "ko")
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_curves_with_a_nan_loss_and_many_runs(mixed, tmp_path):
    pytest.importorskip("matplotlib")
    curve = RunCurves(curves={"loss": [(0, 2.0), (1, 1.0), (2, float("nan"))]})
    curves = {f"{i:02d}-run": curve for i in range(30)}
    written = report.write(SuiteView(name="s", curves=curves), tmp_path)
    assert [p.name for p in written] == ["report.md", "loss.svg", "loss.png"]


def test_no_curves_is_said(mixed, tmp_path):
    pytest.importorskip("matplotlib")
    (page,) = report.write(mixed.model_copy(update={"curves": {}, "records": ()}), tmp_path)
    assert "Figures: n/a (no curves were recorded)." in page.read_text()


def test_without_matplotlib_the_report_says_so(mixed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "results.report.figures", raising=False)
    monkeypatch.delattr(report, "figures", raising=False)
    (page,) = report.write(mixed, tmp_path)
    assert "Figures: n/a (matplotlib is not installed" in page.read_text()


def _child(view, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "results.report", *arguments],
        input=view,
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
    )


def test_the_child_prints_and_writes_nothing(mixed, tmp_path):
    view = mixed.model_dump_json().encode()
    done = _child(view, "-", "--lang", "ko", LC_ALL="C", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == report.render(mixed, "ko")
    assert list(tmp_path.iterdir()) == []


def test_the_same_bytes_in_other_processes_and_time_zones(mixed, tmp_path):
    pytest.importorskip("matplotlib")
    found = []
    for number, zone in enumerate(("Asia/Seoul", "America/New_York")):
        out = tmp_path / str(number)
        done = _child(
            mixed.model_dump_json().encode(), "-", "--out", str(out), TZ=zone,
            PYTHONHASHSEED=str(number),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode().splitlines()[0] == str(out / "report.md")
        found.append({p.name: p.read_bytes() for p in out.rglob("*.*")})
    assert found[0] == found[1]
    assert len(found[0]) == 7


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (b"{", "- is no suite view: the file: Invalid JSON"),
        (b"{}", "- is no suite view: name: Field required"),
        (b'{"name":"x","records":[{}]}', "records.0.identity: Field required"),
    ],
)
def test_the_child_refuses_a_bad_view_in_one_sentence(view, said):
    done = _child(view, "-")
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1


def test_the_child_names_what_it_cannot_use(mixed, tmp_path):
    (tmp_path / "file").write_text("")
    view = mixed.model_dump_json().encode()
    done = _child(view, "-", "--out", str(tmp_path / "file" / "out"))
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.decode() == f"cannot use {tmp_path}/file/out: Not a directory\n"
    done = _child(b"", str(tmp_path / "none.json"))
    assert done.stderr.decode() == f"cannot use {tmp_path}/none.json: No such file or directory\n"


def test_internal_counters_and_tensors_are_in_the_appendix_alone(mixed):
    tensors = "; ".join(f"model.h.*.q.lora_{k} 4 x 4,096" for k in "AB")
    first = mixed.records[0].model_copy(
        update={"facts": {"precision": "fp32", "trainable": tensors}}
    )
    second = mixed.records[1].model_copy(update={"parameters": 9_000_000})
    second = second.model_copy(
        update={"identity": second.identity.model_copy(update={"model": "clip-nano"})}
    )
    view = mixed.model_copy(update={"records": (first, second, mixed.records[2])})
    page = report.render(view)
    for hidden in ("warden_cpu_seconds", "lora_A", "contaminated = 1"):
        assert hidden not in page
    assert page.count("image-skipped") == 1, "a sentence of two runs stands once, with both"
    assert "8.2 M–9.0 M parameters, 8.2 M trained" in page, "variants of a model: one range"
    whole = report.render(view, appendix=True)
    assert whole.startswith(page)
    for shown in ("warden\\_cpu\\_seconds = 0.21", "lora_A", "contaminated = 1"):
        assert shown.replace("\\", "") in whole.replace("\\", "")


def test_what_people_say_stands_where_their_reports_have_it(weekly):
    words = SuiteWords(
        title="SigLIP Study 실험 보고서", goal="Projector 비교", background="METEOR만으로는 부족",
        conclusion="C-Abstractor는 **Mode Collapse** 발생", next_steps=("E1-v2, E3-v2 실험",),
        events=(("다음", "E1-v2 예정"), ("2026-01-20", "E5-v2 | 완료")),
        reasons={"": "양쪽 모두 text+image", "oven_train": "대규모", "tinyclip": "가장 큰 모델"},
    )  # fmt: skip
    recipes = {
        "oven_train": RecipeWords(title="OVEN of M2KR, train", notes="names undocumented"),
        "evqa_train": RecipeWords(title="EVQA"),
    }
    notes = {**weekly.notes, "": ("Diversity 0.11 이하", "SigLIP 단독 평가의 한계")}
    view = weekly.model_copy(update={"words": words, "recipes": recipes, "notes": notes})
    page = report.render(view, "ko")
    assert page.startswith(
        "# SigLIP Study 실험 보고서\n\n> **연구 목표**: Projector 비교\n\n- suite"
    )
    assert page.index("## 요약") < page.index("## 배경\n\nMETEOR만으로는 부족")
    assert "- suite: `weekly-m2kr`" in page
    chosen = page[page.index("선택 이유: 양쪽") : page.index("## 비교 대상")]
    assert "- **`oven_train`**: M2KR의 OVEN, 학습\n  - 선택 이유: 대규모\n  - names" in chosen
    assert "- **`evqa_train`**: EVQA\n" in chosen
    assert "okvqa_mm_train" not in chosen, "nothing is known of it"
    assert "- **tinyclip**: 가장 큰 모델" in page
    assert "## 핵심 발견\n\n1. Diversity 0.11 이하\n2. SigLIP" in page
    lines = page[page.index("## 타임라인") :].splitlines()
    assert [line.split(" | ")[0] for line in lines[4:7]] == [
        "| 2026-01-20", "| 2026-11-21", "| 다음",
    ], "dates in order, words behind"  # fmt: skip
    assert "E5-v2 \\| 완료" in lines[4]
    assert "## 결론\n\n> C-Abstractor는 **Mode Collapse** 발생\n" in page
    assert "## 다음 진행해야 할 것\n\n- E1-v2, E3-v2 실험\n" in page
    untold = report.render(weekly, "ko")
    for heading in ("타임라인", "결론", "다음 진행", "핵심 발견", "배경", "비교 대상"):
        assert heading not in untold


def test_figures_have_a_caption_and_korean_axes_where_there_is_a_font(mixed, tmp_path, monkeypatch):
    figures = pytest.importorskip("results.report.figures")
    report.write(mixed, tmp_path, "ko")
    page = (tmp_path / "report.ko.md").read_text()
    assert "*가로축: optimizer step, 세로축: 학습 loss." in page
    monkeypatch.setattr(figures.drawing, "find_korean_font", lambda: "")
    document = DocumentView(suite=mixed)
    without = figures.draw_figures(document, "ko")
    english = figures.draw_figures(document)
    assert without.figures == english.figures, "no font: English axes, and no boxes"
    assert (without.lacks_font, english.lacks_font) == (True, False)
    report.write(mixed, tmp_path, "ko")
    assert "apt install fonts-nanum" in (tmp_path / "report.ko.md").read_text()
