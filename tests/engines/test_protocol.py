"""The wire: what is written is read back, and no wrong line raises anything but ValueError."""

from __future__ import annotations

import json
import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import messages as msg
from engines import protocol as p

STEP = msg.Step(t=1.5, step=3, count=1, samples=4, seconds=0.1, loss=0.5, lr=1e-3)


def test_a_message_survives_the_wire() -> None:
    assert p.decode(p.encode(STEP)) == STEP
    entry = p.Entry(seq=1, wall=2.0, src="warden", msg=msg.End(cause="killed", signal=9))
    assert p.decode_entry(p.encode(entry)) == entry


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_is_written_on_purpose_and_is_not_null(value: float) -> None:
    line = p.encode(STEP.model_copy(update={"loss": value, "grad_norm": None}))
    data = json.loads(line, parse_constant=lambda name: pytest.fail(f"bare {name} is no JSON"))
    assert isinstance(data["loss"], str)
    assert data["grad_norm"] is None
    back = p.decode(line)
    assert isinstance(back, msg.Step)
    assert back.loss == value or (math.isnan(back.loss) and math.isnan(value))


def test_unknown_fields_are_kept() -> None:
    line = json.loads(p.encode(STEP)) | {"joules": 3}
    back = p.decode(json.dumps(line).encode())
    assert back.model_extra == {"joules": 3}


def test_unknown_kinds_are_kept_raw() -> None:
    back = p.decode(b'{"kind": "energy", "joules": 3}')
    assert isinstance(back, msg.Unknown)
    assert back.model_extra == {"joules": 3}


@pytest.mark.parametrize("kind", ["sample", "end", "attempt"])
def test_an_engine_cannot_speak_as_the_warden(kind: str) -> None:
    with pytest.raises(ValueError, match="malformed"):
        p.decode(json.dumps({"kind": kind, "number": 1, "pid": 1, "cause": "completed"}).encode())


BAD = [
    b"", b"x", b"null", b"3", b"[]", b"{}", b'{"kind": 3}', b'{"kind": "step"}', b"[" * 100_000,
    b'{"kind":"step","step":"many"}', b"\xff\xfe", b'{"kind":"hello","engine":"e","pid":1e400}',
    b'{"a":' * 10_000, b"1" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("line", BAD, ids=[repr(b[:24]) for b in BAD])
def test_malformed_lines_raise_value_error_only(line: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        p.decode(line)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_value_error(line: bytes) -> None:
    try:
        p.decode(line)
    except ValueError:
        return


def test_every_kind_has_a_name_of_its_own() -> None:
    kinds = [m.model_fields["kind"].default for m in get_args(get_args(p.AnyMessage)[0])]
    assert len(set(kinds)) == len(kinds)
