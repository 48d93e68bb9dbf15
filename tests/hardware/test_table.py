"""docs/hardware.md is what the product decides, on every machine of the catalog."""

from __future__ import annotations

from tests.hardware import table
from tests.hardware.decisions import NONE, REFUSED, decide
from tests.hardware.machines import CATALOG


def test_the_document_is_what_is_decided() -> None:
    written = table.FILE.read_text(encoding="utf-8")
    assert written == table.document(), f"run `{table.COMMAND}`, and look at what has changed"


def test_run_and_engine_refuse_the_same_machines(monkeypatch) -> None:
    """What the engine refuses is known before it starts, and nothing else is."""
    for machine in CATALOG:
        with monkeypatch.context() as patch:
            made = decide(patch, machine)
        assert bool(made.before) == bool(made.refusal), machine.key
        assert (made.device == REFUSED) == (made.precision == NONE) == bool(made.refusal)


def test_every_decision_is_made_on_every_machine(monkeypatch) -> None:
    for machine in CATALOG:
        with monkeypatch.context() as patch:
            made = decide(patch, machine)
        if made.refusal:
            continue
        assert made.precision in ("bf16", "fp16", "fp32")
        assert made.products == made.precision
        assert (made.device == "CPU") == (made.lock == "the CPU") == (not machine.gpus)
        slow = "slow, with a notice" if made.device == "CPU" else REFUSED
        assert made.explicit_bf16 == ("runs" if made.precision == "bf16" else slow)
        assert (made.forecast == "host memory") == (not machine.gpus)
