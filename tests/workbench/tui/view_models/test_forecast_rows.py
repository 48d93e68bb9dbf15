"""Cost probes on the screens: asked for in the form, marked in the results."""

from __future__ import annotations

from results.listing.run_filter import ListedRun
from results.listing.summary import summarize_record
from results.listing.views import ResultView
from results.records.schema import (
    Environment,
    Exit,
    ForecastRecord,
    Identity,
    MemoryEstimateRecord,
    MemoryUse,
    Reading,
    RunRecord,
    TimingRecord,
)
from workbench.planning import plan
from workbench.reporting import record_detail
from workbench.tui.view_models import form_fields
from workbench.tui.view_models.plan_draft import draft_from_table
from workbench.tui.view_models.results import rows

NOTHING = Reading(reason="not measured")


def guess(value: float) -> Reading:
    return Reading(value=value, low=value - 9, high=value + 9, method="forecast from 200 steps")


RECORD = RunRecord(
    identity=Identity(
        suite="s", run_id="r", engine="retrieval", task="probe", subset="oven_train", model="m",
        probe_steps=200,
    ),
    environment=Environment(),
    timing=TimingRecord(**dict.fromkeys(
        ("end_to_end_seconds", "time_to_first_step", "epoch_wall_seconds", "step_median",
         "step_p95", "data_wait_share", "samples_per_second", "samples_per_second_median"),
        NOTHING,
    )),
    memory=MemoryUse(**dict.fromkeys(MemoryUse.model_fields, NOTHING)),
    exit=Exit(cause="completed", code=0),
    forecast=ForecastRecord(
        steps=200, asked_steps=200, max_uncertainty=0.02, samples=14_080,
        epoch_steps=5280, run_steps=5300,
        epoch_seconds=guess(456.0), run_seconds=guess(481.0), start_seconds=Reading(value=20.0),
        disk={"image cache": 3 << 30},
    ),
)  # fmt: skip


def texts(record: RunRecord, words: str = "") -> dict[str, str]:
    batch = rows.RunBatch((ListedRun(summarize_record(record)),))
    view = ResultView(filter=words, columns=("end", "epoch", "wall"))
    (_, *cells), *_ = rows.TableRows(rows.make_table(batch, view), [], "")
    return dict(
        zip(view.columns, (c if isinstance(c, str) else c.text for c in cells), strict=True)
    )


def test_a_forecast_is_marked_in_the_results():
    shown = texts(RECORD, "forecast end:forecast")
    assert shown["end"] == "forecast"
    assert (shown["epoch"], shown["wall"]) == ("~7:36.00", "~8:01.00")
    measured = RECORD.model_copy(
        update={"forecast": None, "identity": RECORD.identity.model_copy(update={"probe_steps": 0})}
    )
    assert texts(measured, "-forecast")["end"] == "completed"


def test_the_detail_tells_all_of_it():
    group = next(g for g in record_detail.build_groups(RECORD) if g.title == "Forecast")
    lines = {line.name: f"{line.value} {line.remark}" for line in group.lines}
    assert lines["5,280 steps of an epoch"].startswith("7:36.00 7:27.00 to 7:45.00, forecast")
    assert lines["whole run, 5,300 steps"].startswith("8:01.00")
    assert lines["asked to be within"].startswith("±2.0 %")
    assert lines["image cache"].startswith("3.00 GiB")


def test_the_form_takes_what_the_command_line_takes():
    form = {s.name: s for s in form_fields.settings_of_schema(plan.SuitePlan.model_json_schema())}
    limit, steps = form["max_uncertainty"], form["cost_probe"]
    assert (limit.kind, limit.optional) == ("text", True)
    assert (steps.kind, steps.optional, steps.low) == ("integer", True, 1)
    chosen = {
        "engine": "retrieval", "subsets": ["emoji_train"], "models": ["clip-nano"],
        "cost_probe": form_fields.parse_value(steps, "300"),
        "max_uncertainty": form_fields.parse_value(limit, "±2%"),
    }  # fmt: skip
    request = plan.parse(draft_from_table(chosen, ("cost_probe", "max_uncertainty")).table())
    assert (request.cost_probe, request.max_uncertainty) == (300, 0.02)


def test_the_detail_has_memory_forecast_beside_measured():
    fit = MemoryEstimateRecord(
        gpu="A10G", tensors={"train": 5 << 30}, total={"train": 6 << 30},
        measured=Reading(value=float(4 << 30), method="torch"), error=0.25,
    )  # fmt: skip
    named = {g.title: g for g in record_detail.build_groups(RECORD.model_copy(update={"fit": fit}))}
    lines = [(line.name, line.value, line.remark) for line in named["Memory, forecast"].lines]
    assert lines == [
        ("for", "A10G", ""),
        ("forecast, tensors", "5.00 GiB", "in phase train"),
        ("measured", "4.00 GiB", "torch, forecast +25.0 % against it"),
        ("must have, in all", "6.00 GiB", ""),
    ]
    assert all(28 + len(value) + 2 + len(remark) <= 76 for _, value, remark in lines)
    assert "Memory, forecast" not in {g.title for g in record_detail.build_groups(RECORD)}
