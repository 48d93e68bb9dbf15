"""The captioning part of reports: experiments as the study lists them, scores, examples."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from results import report
from results.records.schema import Exit, Identity, MetricRecord
from results.records.suite_view import CaptionExample, SuiteView
from results.report import captions
from results.tables import captioning
from results.text.table import render_markdown, text_width


def png(side: int = 2) -> bytes:
    """The smallest real picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    rows = zlib.compress(b"".join(b"\0" + b"\x7f" * side for _ in range(side)))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def score(name, value, split, low=None, high=None, method="bootstrap over captions"):
    return MetricRecord(
        name=name, value=value, split=split, n=97, low=low, high=high, method=method
    )


def caption_run(make, run_id, label, *, diversity=0.11, cause="completed"):
    made = make.record(run_id)
    metrics = (
        score("diversity", 0.9, "train"),
        score("diversity", diversity, "heldout", 0.08, 0.14, "jackknife over captions"),
        score("METEOR (exact, kiwi morphemes)", 0.066, "heldout", 0.05, 0.08),
        score("SigLIP cosine (google/siglip2-base-patch16-224)", 0.113, "heldout", 0.1, 0.12),
    )
    identity = made.identity.model_copy(
        update={"engine": "captioning", "label": label, "params": {"projector": "c_abstractor"}}
    )
    return made.model_copy(
        update={
            "identity": identity,
            "metrics": metrics,
            "facts": {"projector": "c_abstractor, 205,533,184 parameters, 144 tokens"},
            "exit": Exit(cause=cause, code=0),
        }
    )


def waiting(label="E1-v2"):
    return Identity(
        suite="s", run_id="03-captioning", engine="captioning", task="train", subset="ko_train",
        model="m", label=label, params={"projector": "linear"},
    )  # fmt: skip


def experiments(records, lang="en", **parts):
    return captioning.experiments(SuiteView(name="s", records=tuple(records), **parts), lang)


def test_experiments_are_the_studys_table(make):
    found = [caption_run(make, "01-c", "E5-v2"), caption_run(make, "02-c", "E5-v3", diversity=0.7)]
    notes = {"01-c": ("mode collapse", "a lower LR did not cure it")}
    table = experiments(found, planned=(waiting(),), states={"02-c": "stopped"}, notes=notes)
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows[0] == [
        "E5-v2", "C-Abstractor", "205.5 M", "heldout", "0.110 [0.080, 0.140]",
        "0.113 [0.100, 0.120]", "0.066 [0.050, 0.080]", "done",
        "mode collapse; a lower LR did not cure it",
    ]  # fmt: skip
    assert table.rows[0][4].flags == ("mode collapse",)
    assert table.rows[1][4].flags == ()
    assert rows[1][7] == "stopped"
    assert rows[2] == ["E1-v2", "Linear", "–", "–", "–", "–", "–", "waiting", ""]
    assert "METEOR (exact, kiwi morphemes)" in render_markdown(table)


def test_scores_by_different_rules_never_stand_in_one_column(make):
    first, second = (caption_run(make, f"0{n}-c", f"E{n}") for n in (1, 2))
    blanks = score("METEOR (exact, ko split at blanks)", 0.01, "heldout")
    cut = score("cut at max_new_tokens", 0.25, "heldout")

    def headings(*records):
        return [c.title for c in experiments(records).columns][4:-2]

    plain = ["Diversity", "SigLIP", "METEOR"]
    both = second.model_copy(update={"metrics": (blanks, *second.metrics, cut)})
    assert headings(first, second) == plain
    assert headings(first, both) == [*plain, "Cut off"], "both have the morphemes' METEOR"
    rows = experiments([first, both]).rows
    assert [row[6].text for row in rows] == ["0.066 [0.050, 0.080]"] * 2
    assert [row[7].text for row in rows] == ["–", "0.250"]
    other = both.model_copy(
        update={"metrics": tuple(m for m in both.metrics if "morphemes" not in m.name)}
    )
    names = ["METEOR (exact, kiwi morphemes)", "METEOR (exact, ko split at blanks)"]
    assert headings(first, other) == [*plain[:2], *names, "Cut off"]
    rows = experiments([first, other]).rows
    assert [[cell.text for cell in row[6:8]] for row in rows] == [
        ["0.066 [0.050, 0.080]", "–"], ["–", "0.010"],
    ]  # fmt: skip


def test_what_runs_are_made_of_is_a_column_only_where_it_differs(make):
    first, second = (caption_run(make, f"0{n}-c", f"E{n}") for n in (1, 2))
    vision = {"vision": "CLIP-ViT-L/14 at 336 px, frozen; 576 patches of 1024"}

    def made_of(run, **params):
        identity = run.identity.model_copy(update={"params": {**run.identity.params, **params}})
        return run.model_copy(update={"identity": identity, "facts": {**run.facts, **vision}})

    lora = {"lora_rank": 16, "lora_alpha": 32}
    runs = [made_of(first, frames=8, **lora), made_of(second, frames=4, **lora)]
    table = experiments(runs, planned=(waiting(),))
    assert [c.title for c in table.columns][2:5] == ["params", "frames", "captions of"]
    assert [row[3].text for row in table.rows] == ["8", "4", "–"]
    shared = (
        "All experiments with results: vision encoder CLIP-ViT-L/14 at 336 px, LoRA r=16, alpha=32"
    )
    assert shared in render_markdown(table)
    partly = experiments([runs[0], made_of(second, frames=8)])
    assert [c.title for c in partly.columns][3] == "LoRA", "not known of the second"
    assert [row[3].text for row in partly.rows] == ["r=16, alpha=32", "–"]


def test_the_words_of_an_imported_runs_source_stand_beside_ours(make):
    run = caption_run(make, "01-c", "E5")
    facts = {waiting().run_id: {"projector": "linear, 4,198,400 parameters"}}
    reported = {"01-c": {"projector": "Resampler", "parameters": "206M"},
                waiting().run_id: {"projector": "Linear", "parameters": "4M"}}  # fmt: skip
    table = experiments([run], planned=(waiting(),), planned_facts=facts, reported=reported)
    assert [[cell.text for cell in row[1:3]] for row in table.rows] == [
        ["C-Abstractor (report: Resampler)", "205.5 M (report: 206M)"],
        ["Linear", "4.2 M (report: 4M)"],
    ]


def test_a_run_that_failed_has_its_cause_and_no_made_up_number(make):
    run = caption_run(make, "01-c", "E5", cause="oom-cuda").model_copy(
        update={"metrics": (), "facts": {}}
    )
    row = [cell.text for cell in experiments([run]).rows[0]]
    assert row[-2] == "oom-cuda"
    assert "ended before the data were loaded" in row[4:7]
    assert "0" not in "".join(row[2:7])


def test_labels_cannot_break_out_of_a_table(make):
    run = caption_run(make, "01-c", "a|b\n<script>")
    for table in (experiments([run]), captioning.scores([run], "heldout")):
        text = render_markdown(table)
        assert "<script>" not in text
        assert (
            len({line.replace("\\|", "").count("|") for line in text.split("\n\n")[0].splitlines()})
            == 1
        )


def example(picture="", caption="a red car", standing="best", value=0.9):
    return CaptionExample(
        split="heldout", standing=standing, id="x", medium="pictures/x.png", caption=caption,
        references=("the red car",), metric="METEOR (exact, kiwi morphemes)", score=value,
        picture=picture,
    )  # fmt: skip


def view(make, *shown):
    return SuiteView(
        name="s", records=(caption_run(make, "01-c", "E5-v2"),), captions={"01-c": shown},
        planned=(waiting(),), states={"03-captioning": "waiting"},
    )  # fmt: skip


def test_pictures_lie_beside_the_report(make, tmp_path: Path):
    picture = tmp_path / "x.png"
    picture.write_bytes(png())
    text = tmp_path / "passwd.png"
    text.write_text("root:x:0:0")
    film = tmp_path / "film.avi"
    film.write_bytes(b"RIFF\0\0\0\0AVI LIST")
    link = tmp_path / "link.png"
    link.symlink_to(picture)
    shown = (
        example(str(picture)), example(str(text), "worst one", "worst", 0.0),
        example(str(film), "moving", "worst", 0.0),
        example(str(link), "<img onerror=x> | `y`", "worst", 0.0),
    )  # fmt: skip
    out = tmp_path / "out"
    written = report.write(view(make, *shown), out, figures=False)
    copied = sorted((out / "pictures").iterdir())
    assert [path.read_bytes() for path in copied] == [png()]
    assert copied[0] in written
    said = (out / "report.md").read_text("utf-8")
    assert f'<img src="pictures/{copied[0].name}" width="96" alt="">' in said
    assert said.count("<img src") == 1
    assert r"\<img onerror=x\>" in said
    assert "root:x" not in said
    assert "E1-v2" in said
    korean = report.render(view(make, *shown), "ko")
    assert "실험 목록" in korean
    assert "pictures/x.png" in korean  # the medium's name, without a copy


def test_other_suites_have_no_such_part(weekly):
    assert "## Experiments" not in report.render(weekly)
    assert captions.copy_pictures(weekly, Path("never-made")) == {}


def test_scores_are_a_row_each(make):
    table = captioning.scores([caption_run(make, "01-c", "E5-v2")], "heldout")
    assert table.rows[0][0].text == "diversity"
    assert table.columns[2].title == "E5-v2"
    assert len(table.rows) == 3
    assert captioning.splits([caption_run(make, "01-c", "x")]) == ["train", "heldout"]


def test_the_architecture_is_drawn_with_every_projector(make):
    facts = {
        "vision": "CLIP at 336 px, frozen; 576 patches of 1,024, layer -2",
        "llm": "Qwen3-8B, 252 linear layers in NF4, 5,120.0 MiB",
    }
    runs = [
        caption_run(make, run_id, "").model_copy(update={"facts": {**facts, "projector": said}})
        for run_id, said in (
            ("01", "linear, 4,198,400 parameters, 576 tokens"),
            ("02", "c_abstractor, 206,158,656 parameters, 144 tokens"),
        )
    ]
    page = report.render(SuiteView(name="s", records=tuple(runs)), "ko")
    block = page.partition("```text\n")[2].partition("\n```")[0].splitlines()
    drawn = "\n".join(block)
    assert drawn.count(" ──▶ ") == 2
    assert "Vision Encoder" in block[1]
    assert "Projector" in block[1]
    for line in ("- Linear (4.2 M, 576 tokens)", "- C-Abstractor (206.2 M, 144 tokens)", "patch",
                 "Qwen3-8B", "4-bit NF4", "(Frozen)", "(학습)"):  # fmt: skip
        assert line in drawn
    assert len({text_width(line) for line in block}) == 1, "a rectangle in cells"
    bare = [caption_run(make, "01", "")]
    assert "```text" not in report.render(SuiteView(name="s", records=tuple(bare)), "en")
