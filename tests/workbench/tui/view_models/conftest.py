"""Feeds that read a journal whole in one poll, however busy the machine is."""

from __future__ import annotations

import pytest

from workbench.tui.view_models import small_pane, suite_feed


@pytest.fixture(autouse=True)
def whole_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll ends where the journals end, not after half a second."""
    for module in (small_pane, suite_feed):
        monkeypatch.setattr(module, "READ_SECONDS", 600.0)
