"""Memory forecast and measured: the same thing on both sides, and a reason where one is missing."""

from __future__ import annotations

import pytest

from results import report
from results.records.schema import MemoryEstimateRecord, Reading
from results.records.suite_view import SuiteView
from results.tables import memory_estimate
from results.text.table import render_markdown

GIB = 1 << 30
ON_GPU = MemoryEstimateRecord(
    gpu="A10G", tensors={"train": 5 * GIB, "predict": 4 * GIB},
    total={"train": 6 * GIB, "predict": 5 * GIB},
    measured=Reading(value=4 * GIB, method="torch"), error=0.25,
)  # fmt: skip
ON_CPU = MemoryEstimateRecord(
    tensors={"train": GIB, "predict": 2 * GIB}, total={"train": 2 * GIB, "predict": 3 * GIB},
    measured=Reading(value=4 * GIB, method="VmHWM"), error=-0.25,
)  # fmt: skip
UNMEASURED = ON_GPU.model_copy(update={"measured": Reading(reason="no CUDA device"), "error": None})


def test_each_kind_compares_what_its_measurement_counts():
    assert (ON_GPU.phase, ON_GPU.expected, ON_GPU.needed) == ("train", 5 * GIB, 6 * GIB)
    assert (ON_CPU.phase, ON_CPU.expected, ON_CPU.needed) == ("predict", 3 * GIB, 3 * GIB)
    empty = MemoryEstimateRecord(measured=Reading(reason="x"))
    assert (empty.phase, empty.expected, empty.needed) == ("", 0, 0)


def test_rows_of_the_table(make):
    records = [make.record("01-a", fit=ON_GPU), make.record("02-b", fit=UNMEASURED)]
    shown = render_markdown(memory_estimate.table(records))
    assert "| A10G | train | 5.00 GiB | 4.00 GiB | +25.0 % | 6.00 GiB |" in shown
    assert "| A10G | train | 5.00 GiB | n/a (no CUDA device) | – | 6.00 GiB |" in shown
    assert "max_memory_allocated" in shown
    assert "VmHWM" not in shown, "no row is about a CPU"
    host = render_markdown(memory_estimate.table([make.record(fit=ON_CPU)]))
    assert "| CPU, host memory | predict | 3.00 GiB | 4.00 GiB | -25.0 % | 3.00 GiB |" in host
    assert "VmHWM" in host
    assert memory_estimate.table([make.record()]).rows == ()


@pytest.mark.parametrize(
    ("lang", "heading"),
    [("en", "### Memory, forecast and measured"), ("ko", "### 메모리 예측값과 측정값")],
)
def test_reports_have_it_only_where_something_was_forecast(make, lang, heading):
    with_one = SuiteView(name="s", records=(make.record(fit=ON_GPU), make.record("02-b")))
    assert heading in report.render(with_one, lang)
    assert heading not in report.render(SuiteView(name="s", records=(make.record(),)), lang)


def test_one_run_in_a_sentence():
    assert memory_estimate.sentence(ON_GPU) == (
        "forecast 5.00 GiB in training, measured 4.00 GiB (+25.0 %); A10G must have 6.00 GiB"
    )
    assert memory_estimate.sentence(UNMEASURED).endswith(
        "measured n/a (no CUDA device); A10G must have 6.00 GiB"
    )
    assert "in prediction" in memory_estimate.sentence(ON_CPU)
    assert memory_estimate.sentence(ON_CPU).endswith("the host must have 3.00 GiB")
