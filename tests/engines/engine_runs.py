"""What tests of engines share: a configuration of their own, and a run inside of the test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from engines.emitter import Emitter
from engines.protocol import RunSpec


@contextmanager
def configured(folder: Path) -> Iterator[Path]:
    """The environment points at the folder's config/."""
    before = os.environ.get("WORKBENCH_CONFIG")
    os.environ["WORKBENCH_CONFIG"] = str(folder / "config")
    try:
        yield folder
    finally:
        os.environ.pop("WORKBENCH_CONFIG")
        if before is not None:
            os.environ["WORKBENCH_CONFIG"] = before


def subset_fixture(
    write: Callable[[Path], None], scope: Literal["module", "session"] = "module"
) -> Any:
    """A fixture: a folder with what `write` puts there; the environment points at its config/."""

    @pytest.fixture(scope=scope)
    def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        place = tmp_path_factory.mktemp("tiny")
        write(place)
        with configured(place):
            yield place

    return folder


def go(
    run: Callable[[RunSpec, Emitter, Path], None],
    asked: RunSpec,
    run_dir: Path,
    emit: Emitter | None = None,
) -> list:
    """Run to the end; all messages."""
    emit = emit or Emitter()
    run_dir.mkdir(parents=True, exist_ok=True)
    run(asked, emit, run_dir)
    emit.close()
    return emit.sent


def weights(run_dir: Path) -> bytes:
    """What was trained. Step messages are means over as many steps as half a second holds."""
    return (run_dir / "checkpoints/last/model.safetensors").read_bytes()


class Impatient(Emitter):
    """Asks to stop after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def send(self, message: Any) -> None:
        if message.kind == "step" and message.step >= self._steps:
            self.stop_requested = True
        super().send(message)
