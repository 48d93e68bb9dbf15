"""Values of runs as lists show them."""

from __future__ import annotations

import pytest

from results.listing.values import format_value


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("rate", 12_345.6, "12,346"), ("rate", 741.23, "741.2"), ("pixels", 1048577.0, "1048577"),
        ("lr", 2e-5, "2e-05"), ("score", 0.41237, "0.4124"), ("epochs", 3.0, "3"),
        ("rss", None, ""), ("layers", [3, 7], "3 7"),
    ],
)  # fmt: skip
def test_a_number_keeps_its_digits(key, value, shown):
    assert format_value(value, key) == shown
