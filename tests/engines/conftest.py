"""A small subset whose questions need both modalities, built from files by the real data room."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines import emitter
from engines.torchkit.training import step_timing
from tests.engines import engine_runs
from tests.engines.random_models import ModelFolders
from tests.engines.tiny_retrieval import write_tiny_subset


@pytest.fixture(scope="module")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelFolders]:
    """Folders of large models, removed after the module's last test."""
    with ModelFolders(tmp_path_factory.getbasetemp()) as folders:
        yield folders


tiny = engine_runs.subset_fixture(write_tiny_subset, "session")


@pytest.fixture
def single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step message is of one step; else of as many as half a second holds."""
    monkeypatch.setattr(step_timing, "MAX_WINDOW_STEPS", 1)
    monkeypatch.setattr(emitter, "STEP_INTERVAL_SECONDS", 0.0)


@pytest.fixture
def write_subset() -> Callable[[Path], None]:
    """Writes another tiny folder, to be damaged."""
    return write_tiny_subset
