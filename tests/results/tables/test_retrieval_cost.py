"""What evaluating cost, in tables and from the journal; headline metrics and readable columns."""

import pytest

from engines import messages as msg
from engines import protocol as p
from results.records.schema import EvaluationRecord, MetricRecord, Reading, RunRecord
from results.tables import metrics as tables_metrics
from results.tables import retrieval_cost, run_cells, run_cost, steps_and_memory
from results.text.table import render_markdown
from workbench.suites import record
from workbench.suites.state import reduce_entries

FIRST = EvaluationRecord(
    split="okvqa_val", queries=5046, passages=114_810, batches=470, depth=500,
    time_to_first_batch=12.5, corpus_seconds=100.0, query_seconds=4.0, search_seconds=5.0,
    score_seconds=3.0,
)  # fmt: skip
SECOND = FIRST.model_copy(
    update={"split": "okvqa_test", "corpus_seconds": None, "time_to_first_batch": None,
            "batches": 20, "precision": "bf16"}
)  # fmt: skip


def cells(table, row=0):
    return {c.title: cell.text for c, cell in zip(table.columns, table.rows[row], strict=True)}


def evaluated(make, **changes):
    timing = make.untimed(
        end_to_end_seconds=Reading(value=140.0), epoch_wall_seconds=Reading(value=118.0)
    )
    return make.record(
        identity={"task": "evaluate", "subset": "okvqa_val", "params": {"epochs": 20}},
        samples=10_092, steps=0, planned_steps=0, evaluations=(FIRST, SECOND),
        timing=timing.model_copy(update={"epoch_steps": 490}), **changes,
    )  # fmt: skip


def test_each_split_is_a_row_and_the_corpus_is_paid_once(make):
    table = retrieval_cost.cost([evaluated(make)])
    first, second = cells(table), cells(table, 1)
    assert first["encode corpus (passages/s)"] == "1:40.00 (1,148/s)"
    assert first["encode queries (/s)"] == "0:04.00 (1,262/s)"
    assert first["search (queries/s)"] == "0:05.00 (1,009/s)"
    assert first["1 epoch (encode, search)"] == "1:49.00"
    assert first["time to first batch"] == "0:12.50"
    assert second["encode corpus (passages/s)"] == "reused"
    assert second["1 epoch (encode, search)"] == "0:09.00"
    assert second["ranked per query"] == "500 (exact, bf16)"


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_nothing_evaluated_is_no_table(make, lang):
    assert render_markdown(retrieval_cost.cost([make.record()], lang)) == ""


def test_an_evaluation_is_a_row_of_the_weekly_table(make):
    """One epoch, whatever the model's training settings say; batches where others have steps."""
    run = evaluated(make)
    table = run_cost.cost_table([make.record(), run])
    assert run_cells.epochs_done(run) == 1.0
    shown = cells(table, 1)
    assert shown["loaded samples"] == "10,092"
    assert shown["steps"] == "490 batches"
    assert shown["1 epoch wall-clock"] == "2:20.00"
    assert shown["training of 1 epoch"] == "1:58.00 (490)"
    assert any("Evaluations:" in remark.text for remark in table.remarks)
    assert len(steps_and_memory.step_table([make.record(), run]).rows) <= 1, (
        "it has no steps to time"
    )


def metrics(split, *names):
    return tuple(
        MetricRecord(name=n, value=0.5, split=split, n=9, low=0.4, high=0.6) for n in names
    )


EVERY = [
    f"{base}@{k}" for base in ("recall", "pseudo_recall") for k in (1, 5, 10, 20, 50, 100, 500)
]


@pytest.mark.parametrize(
    ("split", "headline"),
    [("okvqa_test", "pseudo_recall@5"), ("oven_val", "recall@5"), ("wit_test", "recall@10"),
     ("infoseek_bal76k_val", "pseudo_recall@5"), ("emoji_val", "")],
)  # fmt: skip
def test_the_headline_leads_and_many_cutoffs_are_thinned(make, split, headline):
    table = tables_metrics.metrics([make.record(metrics=metrics(split, *EVERY, "mrr@10"))], split)
    titles = [c.title for c in table.columns][2:]
    kept = [n for n in EVERY if int(n.split("@")[1]) in (1, 5, 10, 100)] + ["mrr@10"]
    assert sorted(titles) == sorted(kept)
    assert not any(cell.kind == "strong" for cell in table.rows[0]), "nothing to be better than"
    assert titles[0] == (headline or "recall@1")
    said = " ".join(remark.text for remark in table.remarks)
    assert "20, 50, 500" in said
    assert ("The first metric" in said) == bool(headline)


def test_few_cutoffs_are_all_shown(make):
    old = metrics("emoji_val", "recall@1", "recall@5", "recall@10", "recall@50")
    table = tables_metrics.metrics([make.record(metrics=old)], "emoji_val")
    assert [c.title for c in table.columns][2:] == [m.name for m in old]


def test_from_the_journal_to_the_record_and_back():
    said = msg.Evaluation(t=5, **FIRST.model_dump())
    entries = [
        p.decode_entry(p.encode(p.Entry(seq=i, wall=0.0, src="engine", msg=m)))
        for i, m in enumerate([msg.Attempt(number=1, pid=3), said, msg.End(t=9, cause="completed")])
    ]
    spec = p.RunSpec(suite="s", run_id="01", engine="retrieval", task="evaluate", subset="a",
                     model="m", cache_root="c")  # fmt: skip
    made = record.build_record(spec, reduce_entries(entries), "s/runs/01")
    assert made.evaluations == (FIRST,)
    again = RunRecord.model_validate_json(made.model_dump_json())
    assert again.evaluations[0].epoch_seconds == 109.0
    older = made.model_dump(mode="json", by_alias=True)
    older.pop("evaluations")
    assert RunRecord.model_validate(older).evaluations == ()
