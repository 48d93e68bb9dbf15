"""`workbench serve` as a command: bad places and a missing package are sentences."""

from __future__ import annotations

import importlib.util
import socket

import pytest
from typer.testing import CliRunner

from workbench.cli import main


def run_serve(*words: str) -> tuple[int, str]:
    outcome = CliRunner().invoke(main.app, ["serve", *words])
    return outcome.exit_code, outcome.output


def test_without_the_package_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "workbench.cli.serve.find_spec",
        lambda name: None if name == "textual_serve" else find(name),
    )
    code, output = run_serve()
    assert code == 2
    assert "pip install 'workbench-mm[serve]'" in output


@pytest.mark.parametrize("port", ["0", "70000", "x"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    assert run_serve("--port", port)[0] == 2


def test_a_port_in_use_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("textual_serve")
    monkeypatch.setenv("WORKBENCH_LOG_ROOT", "x")  # restored afterwards
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        code, output = run_serve("--port", str(held.getsockname()[1]))
    assert code == 2
    assert "cannot be used" in output
    assert "Traceback" not in output
