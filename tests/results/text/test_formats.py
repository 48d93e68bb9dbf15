"""Numbers, sizes and times as text."""

import pytest

from results.text import formats


@pytest.mark.parametrize(
    ("function", "value", "shown"),
    [
        (formats.duration, 481.39, "8:01.39"),
        (formats.duration, 0, "0:00.00"),
        (formats.duration, 59.996, "1:00.00"),
        (formats.duration, 3599.994, "59:59.99"),
        (formats.duration, 3599.996, "1:00:00"),
        (formats.duration, 3723.4, "1:02:03"),
        (formats.duration, 100_000, "27:46:40"),
        (formats.duration, -0.001, "0:00.00"),
        (formats.duration, -61.5, "-1:01.50"),
        (formats.duration, float("nan"), "NaN"),
        (formats.duration, float("inf"), "inf"),
        (formats.clock, 35.92, "0:36"),
        (formats.clock, 3599.9, "1:00:00"),
        (formats.duration_in_words, 899.49, "14 min 59 s"),
        (formats.duration_in_words, 59.6, "1 min 0 s"),
        (formats.duration_in_words, 3661, "1 h 1 min 1 s"),
        (formats.duration_in_words, 0.2, "0 s"),
        (formats.step_time, 0.0864, "86.4 ms"),
        (formats.step_time, 1.2549, "1.25 s"),
        (formats.step_time, 0.00042, "0.420 ms"),
        (formats.size, 3.15 * 2**30, "3.15 GiB"),
        (formats.size, 612 * 2**20, "612 MiB"),
        (formats.size, 0, "0 MiB"),
        (formats.count, 339_137, "339,137"),
        (lambda n: formats.count_noun(n, "run"), 1, "1 run"),
        (lambda n: formats.count_noun(n, "run"), 2_000, "2,000 runs"),
        (formats.flops, 999.7e9, "1 TFLOP"),
        (formats.flops, 999.4e9, "999 GFLOP"),
        (formats.flops, 5e21, "5,000 EFLOP"),
        (formats.number, 1.52844, "1.5284"),
        (formats.number, 0.0, "0.0000"),
        (formats.number, 3.2e-5, "3.2e-05"),
        (formats.number, float("-inf"), "-inf"),
        (formats.percent, 0.0431, "4.3 %"),
        (formats.rate, 741.23, "741.2"),
        (formats.rate, 12345.6, "12,346"),
        (formats.parameters, 61_300_000, "61.3 M"),
        (formats.parameters, 8_290_000_000, "8.29 B"),
        (formats.parameters, 8192, "8,192"),
    ],
)
def test_formats(function, value, shown):
    assert function(value) == shown


def test_intervals():
    assert formats.interval(0.412, 0.389, 0.436) == "0.412 [0.389, 0.436]"
    assert formats.interval(0.412, None, None) == "0.412"
    assert formats.step_time_interval(0.0864, 0.0859, 0.087) == "86.4 ms [85.9, 87.0]"
    assert formats.step_time_interval(1.3, 1.26, 1.4) == "1.30 s [1.26, 1.40]"
