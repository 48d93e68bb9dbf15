"""Protocol between engine and warden, and the spec of a run.

Both sides of the pipe import this module; it knows no processes, files or torch. A message
(engines/messages.py) is one line of UTF-8 JSON, on the wire as in the journal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)  # fmt: skip

from engines import messages
from engines.messages import PROTOCOL, Message, StoredSettings, Unknown
from results.text.renamed_words import rename_plan_keys

MAX_LINE: Final = 65_536
"""Bytes. The emitter never writes a longer line and the warden drops (and counts) one."""

Task = Literal["train", "evaluate", "infer", "ensemble", "probe"]


class Probe(BaseModel):
    """Settings of a cost probe, the task `probe` of a training engine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _rename = model_validator(mode="before")(rename_plan_keys)

    steps: int = Field(200, ge=1)
    """Timed steps after the timing warm-up, at most."""
    max_uncertainty: float | None = Field(None, gt=0, lt=1)
    """Stop as soon as the half-width of the forecast's interval is below this share of it."""
    unseen: float | None = Field(None, ge=0, lt=1)
    """Variation of the machine that so short a run cannot see, as a half-width over the forecast.
    None: not known yet, the default of the device."""
    unseen_from: str = ""
    """Source of `unseen`; ends the text of the interval's method."""


class Trial(BaseModel):
    """Trial of a hyper-parameter search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    settings: StoredSettings
    """The searched settings with the values of this trial; also in `params`."""


def count_ranks(params: Mapping[str, Any]) -> int:
    """Processes that share the training of a run: `nproc_per_node` on each of `nnodes`."""
    return math.prod(
        value if isinstance(value := params.get(name), int) and value > 0 else 1
        for name in ("nproc_per_node", "nnodes")
    )


def parse_device(value: Any) -> int | str:
    """A GPU as a plan or a person names it.

    Raises:
        ValueError: neither an index nor a UUID or the beginning of one.
    """
    text = str(value).strip()
    if isinstance(value, int | str) and not isinstance(value, bool):
        if text.isascii() and text.isdigit():
            return int(text)
        if re.fullmatch(r"(GPU|MIG)-[0-9A-Za-z/-]+", text):
            return text
    raise ValueError("give a GPU's index, as nvidia-smi prints it, or its UUID: GPU-… or MIG-…")


Device = Annotated[int | str, PlainValidator(parse_device, json_schema_input_type=int | str)]
"""A GPU: NVML's index of a card, as nvidia-smi prints it, or the UUID of a card or a MIG slice (its
beginning is enough)."""


class RunSpec(BaseModel):
    """Spec of a run: the content of `spec.json` in its run folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: int = PROTOCOL
    suite: str
    run_id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,95}$")
    engine: str
    task: Task = "train"
    subset: str
    model: str
    base_model: str = ""
    """Of a trained model (`run:` or `path:`): the model that its training started from."""
    params: StoredSettings = {}
    """Complete and validated: every setting of the engine's Params with its value."""
    seed: int = 42
    repeat: int = 0
    needs: tuple[str, ...] = ()
    """Run ids of the same suite that must be completed before this one starts."""
    devices: tuple[Device, ...] = ()
    """GPUs made visible to the engine; empty: the CPU, or whatever the environment shows."""
    cpu: bool = False
    """No GPU is made visible to the engine."""
    exclusive: bool = False
    """No other run of the suite is at work meanwhile: lanes are drained first."""
    cache_root: str
    label: str = ""
    """The user's name for the run (an experiment id, say); shown in tables."""
    plan_hash: str = ""
    probe: Probe | None = None
    """Only train this many steps and forecast the rest; None: no cost probe."""
    trial: Trial | None = None
    """The run's place in a search; None: it is no trial."""
    origins: StoredSettings = {}
    """Settings that come from the environment or a rule, and from which: for the record."""
    fit: dict[str, Any] = {}
    """The memory forecast made before the start, for the record; see results.records.schema.Fit."""
    oom_retries: int = Field(3, ge=0, le=16)
    """Attempts with a smaller micro-batch after the device ran out of memory."""
    on_disk_full: Literal["stop", "continue"] = "stop"
    """Whether the run goes on, its journal with a gap, when the disk of the journal is full."""


_Engine = (
    messages.Hello | messages.Phase | messages.Plan | messages.Step | messages.Progress
    | messages.Metric | messages.Evaluation | messages.Timing | messages.EpochSummary
    | messages.StageSummary | messages.Forecast | messages.Memory | messages.Artifact
    | messages.Notice | messages.Oom | messages.Done | messages.Failed
)  # fmt: skip
_Warden = messages.Attempt | messages.Sample | messages.End
EngineMessage = Annotated[_Engine, Field(discriminator="kind")]
AnyMessage = Annotated[_Engine | _Warden, Field(discriminator="kind")]

DROPPABLE: Final = ("step", "progress")
"""Kinds that the emitter may drop (and count) when the pipe is full. All others always arrive."""

_ENGINE: TypeAdapter[Any] = TypeAdapter(EngineMessage)
_ANY: TypeAdapter[Any] = TypeAdapter(AnyMessage)
_KINDS: Final = frozenset(
    get_args(m.model_fields["kind"].annotation)[0] for m in get_args(get_args(AnyMessage)[0])
)


class Entry(BaseModel):
    """One line of a run's journal, `events.jsonl`."""

    model_config = ConfigDict(frozen=True, extra="allow", ser_json_inf_nan="strings")

    seq: int
    wall: float
    """Unix time; a label only, never used for durations."""
    src: Literal["engine", "warden"]
    msg: AnyMessage | Unknown = Field(union_mode="left_to_right")


def encode(message: BaseModel) -> bytes:
    """One message or journal entry as one line, newline included."""
    return message.model_dump_json().encode() + b"\n"


def decode(line: bytes, *, from_engine: bool = True) -> Message:
    """One line as one message; an unknown kind becomes `Unknown`.

    Raises:
        ValueError: the line is not JSON, not an object, nested too deeply, or a known kind with
            wrong fields. The warden counts such a line as malformed.
    """
    adapter = _ENGINE if from_engine else _ANY
    try:
        message: Message = adapter.validate_json(line)
    except ValidationError as error:
        kind = _read_kind(line)
        if kind is not None and kind not in _KINDS:
            return Unknown.model_validate_json(line)
        first = error.errors(include_url=False)[0]["msg"]
        raise ValueError(f"malformed message: {first}") from None
    return message


def decode_entry(line: bytes) -> Entry:
    """One line of a journal.

    Raises:
        ValueError: the line is torn or is no entry.
    """
    return Entry.model_validate_json(line)


def _read_kind(line: bytes) -> str | None:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kind = data.get("kind") if isinstance(data, dict) else None
    return kind if isinstance(kind, str) else None
