"""Lists on the command line."""

from __future__ import annotations

import pytest

from workbench.cli import catalogs


def test_models_that_are_ready_stand_first_and_columns_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "a-name-of-more-than-twenty-letters"
    problem = f"model '{name}': its weights are not here"
    catalogs._print_model_table(
        [(name, "vqa", "Large", problem), ("nano", "retrieval", "Small", None)]
    )
    ready, missing, reason = capsys.readouterr().out.splitlines()
    assert ready.split() == ["nano", "retrieval", "ready", "Small"]
    assert ready.index("Small") == missing.index("Large")
    assert reason.strip() == "its weights are not here"
