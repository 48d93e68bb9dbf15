"""Parts of a report that are not tables of measurements: models, environment, settings, notices.

Apart from the assembly in `weekly`. Each function takes records and gives Markdown; an empty
string is a part that has nothing to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from results.records.schema import RunRecord
from results.records.suite_view import SuiteView
from results.tables import message_translations
from results.tables.table import Cell, Column, Table, code, escape, markdown, prose
from results.text import formats
from results.text.translations import say

NOTICES: Final = 20
"""A report shows this many distinct notices; the rest are counted. The appendix has them all."""

INTERNAL: Final = frozenset({"trainable", "openmp_wait", "note"})
"""Facts that are not of a model: the appendix has them; `note` stands in the training table."""

NO_GPU: Final = 'CUDA_VISIBLE_DEVICES=""'

A_LINE: Final = 5
"""Settings a line: thirty of them one below the other would push the results off the page."""


def subsets(records: Sequence[RunRecord], lang: str) -> str:
    """Every subset once, with its samples and fingerprint."""
    known: dict[str, RunRecord] = {}
    for record in records:
        earlier = known.get(record.identity.subset)
        if earlier is None or not earlier.samples:
            known[record.identity.subset] = record
    columns = (
        Column(say("column.subset", lang)),
        Column(say("loaded samples", lang), right=True),
        Column(say("report.fingerprint", lang)),
    )
    body = tuple(
        (Cell(name, "code"), _samples(r, lang), _fingerprint(r, lang)) for name, r in known.items()
    )
    return markdown(Table(columns, body)) if body else ""


def _samples(record: RunRecord, lang: str) -> Cell:
    if record.samples:
        return Cell(formats.count(record.samples), "value")
    return Cell(say("not reached", lang), "unknown")


def _fingerprint(record: RunRecord, lang: str) -> Cell:
    known = record.identity.subset_fingerprint
    return Cell(known[:16], "code") if known else Cell(say("report.not recorded", lang), "unknown")


def models(records: Sequence[RunRecord], lang: str) -> str:
    """Every model once: revision, parameters, and the facts that its engine told."""
    lines = []
    for name in dict.fromkeys(r.identity.model for r in records):
        own = [r for r in records if r.identity.model == name]
        parts = [code(name), *_revision(own, lang), *_parameters(own, lang)]
        lines.append("- " + ", ".join(parts))
        lines += [f"  - {line}" for line in _model_facts(own, lang)]
    return _block(lines)


def _model_facts(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    """Each fact once; one that differs between the model's runs with the subsets it is of."""
    found: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for key, value in record.facts.items():
            if key not in INTERNAL:
                found.setdefault(key, {}).setdefault(value, []).append(record.identity.subset)
    for key, values in found.items():
        for value, subsets in values.items():
            of = ", ".join(map(code, dict.fromkeys(subsets)))
            named = escape(message_translations.name(key, lang)) + (
                f" ({of})" if len(values) > 1 else ""
            )
            yield f"{named}: {escape(message_translations.localized(value, lang))}"


def _revision(records: Sequence[RunRecord], lang: str) -> list[str]:
    found = dict.fromkeys(r.identity.model_revision for r in records if r.identity.model_revision)
    return [say("report.revision", lang).format(code(revision)) for revision in found]


def _parameters(records: Sequence[RunRecord], lang: str) -> list[str]:
    """One entry: variants of a model differ in size, and their sizes are then a range."""
    known = [r for r in records if r.parameters is not None]
    if not known:
        return []
    whole = _weights([r.parameters for r in known])
    trained = _weights([r.trainable_parameters for r in known])
    return [say("report.parameters", lang).format(whole, trained)]


def _weights(values: Sequence[int | None]) -> str:
    known = sorted({value for value in values if value is not None})
    ends = dict.fromkeys(formats.parameters(value) for value in (known[:1] + known[-1:]))
    return "–".join(ends) or formats.n_a("")


def environment(records: Sequence[RunRecord], lang: str) -> str:
    """Versions, machine, GPU, threads and code; where runs differ, which run had what."""
    items: dict[str, Callable[[RunRecord], str]] = {
        "device": lambda r: r.environment.device,
        "gpu": lambda r: _gpus(r, lang),
        "driver": lambda r: r.environment.driver,
        "nvml": lambda r: r.environment.nvml_library,
        "cpu": lambda r: _cpu(r, lang),
        "ram": lambda r: formats.size(r.environment.ram_bytes) if r.environment.ram_bytes else "",
        "threads": lambda r: str(r.environment.threads or ""),
        "platform": lambda r: r.environment.platform,
        "python": lambda r: r.environment.python,
        "versions": lambda r: ", ".join(
            f"{name} {version}" for name, version in sorted(r.environment.versions.items())
        ),
        "git": lambda r: _git(r, lang),
        "host": lambda r: r.environment.hostname,
    }
    shown = {say(f"report.{name}", lang): _agreed(records, get) for name, get in items.items()}
    lines = [f"- {title}: {text}" for title, text in shown.items() if text]
    if missing := [title for title, text in shown.items() if not text]:
        why = formats.n_a(say("report.not recorded", lang))
        lines.append(f"- {', '.join(missing)}: {why}")
    return _block(lines)


def _agreed(records: Sequence[RunRecord], value: Callable[[RunRecord], str]) -> str:
    """The value of all runs that know one, or every value with its runs."""
    found: dict[str, list[str]] = {}
    for record in records:
        if text := value(record):
            found.setdefault(text, []).append(record.identity.run_id)
    if len(found) <= 1:
        return escape(next(iter(found), ""))
    return "; ".join(f"{escape(text)} ({_few(runs)})" for text, runs in found.items())


def _few(runs: Sequence[str]) -> str:
    named = ", ".join(map(code, runs[:3]))
    return named if len(runs) <= 3 else f"{named}, … {len(runs)}"


def _gpus(record: RunRecord, lang: str) -> str:
    machine = record.environment
    named = [
        gpu.name + (f" ({formats.size(gpu.memory_bytes)})" if gpu.memory_bytes else "")
        for gpu in machine.gpus
    ]
    text = ", ".join(named) or (formats.n_a(machine.gpu_reason) if machine.gpu_reason else "")
    return f"{text} — {say('report.stand-in', lang)}" if machine.nvml_stub else text


def _cpu(record: RunRecord, lang: str) -> str:
    cores = record.environment.cores
    counted = [say("report.cores", lang).format(cores)] if cores else []
    return ", ".join([part for part in (record.environment.cpu, *counted) if part])


def _git(record: RunRecord, lang: str) -> str:
    commit = record.environment.git_commit[:12]
    dirty = commit and record.environment.git_dirty
    return say("report.dirty", lang).format(commit) if dirty else commit


def fixed_settings(records: Sequence[RunRecord], lang: str) -> str:
    """`name=value` of every setting that all runs of an engine share, one list an engine."""
    blocks = []
    engines = dict.fromkeys(r.identity.engine for r in records)
    for engine in engines:
        own = [r for r in records if r.identity.engine == engine]
        same, _ = _settings(own)
        given = [code(f"{name}={value}") for name, value in same.items() if value != "null"]
        unset = [code(name) for name, value in same.items() if value == "null"]
        lines = [f"{code(engine)}:", ""] if len(engines) > 1 else []
        visible = {r.environment.cuda_visible_devices for r in own}
        if len(visible) == 1 and (shown := visible.pop()) is not None:
            given = [code(f"CUDA_VISIBLE_DEVICES={shown}" if shown else NO_GPU), *given]
        starts = range(0, len(given), A_LINE)
        lines += [f"- {', '.join(given[start : start + A_LINE])}" for start in starts]
        if unset:
            lines.append(f"- {say('report.unset', lang)}: {', '.join(unset)}")
        blocks.append(_block(lines))
    return "\n".join(block for block in blocks if block)


def differing_settings(records: Sequence[RunRecord], lang: str) -> str:
    """One row a run, one column a setting that is not the same in all runs of its engine."""
    tables = []
    for engine in dict.fromkeys(r.identity.engine for r in records):
        own = [r for r in records if r.identity.engine == engine]
        _, names = _settings(own)
        if not names:
            continue
        columns = (Column(say("column.run_id", lang)), *(Column(code(name)) for name in names))
        body = tuple((Cell(r.identity.run_id, "code"), *_values(r, names)) for r in own)
        tables.append(markdown(Table(columns, body)))
    return "\n".join(tables)


def _settings(records: Sequence[RunRecord]) -> tuple[dict[str, str], list[str]]:
    """Settings with one value for all runs, and the names of the others."""
    asked = [_asked(record) for record in records]
    names = dict.fromkeys(name for settings in asked for name in settings)
    values = {name: {settings.get(name) for settings in asked} for name in names}
    same = {n: value for n in names if len(values[n]) == 1 and (value := asked[0][n]) is not None}
    return same, [name for name in names if name not in same]


def _asked(record: RunRecord) -> dict[str, str]:
    settings: dict[str, Any] = {**record.identity.params, "seed": record.identity.seed}
    return {name: _setting(value) for name, value in settings.items()}


def _setting(value: object) -> str:
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _values(record: RunRecord, names: Sequence[str]) -> tuple[Cell, ...]:
    asked = _asked(record)
    return tuple(Cell(asked[n], "code") if n in asked else Cell("–", "value") for n in names)


def notices(records: Sequence[RunRecord], lang: str) -> str:
    """What the runs reported, each sentence once: skipped images, cut texts, retries."""
    found: dict[str, list[str]] = {}
    for record in records:
        for text in dict.fromkeys(record.notices):
            found.setdefault(text, []).append(record.identity.run_id)
    lines = [
        f"- {escape(text)}{_whose(runs, len(records))}" for text, runs in [*found.items()][:NOTICES]
    ]
    if len(found) > NOTICES:
        lines.append(f"- {say('report.more', lang).format(len(found) - NOTICES)}")
    return _block(lines)


def _whose(runs: Sequence[str], total: int) -> str:
    return "" if len(runs) == total else f" ({_few(runs)})"


def appendix(records: Sequence[RunRecord]) -> str:
    """By run: every notice, every counter, and what the record knows of the trained tensors."""
    lines = []
    for record in records:
        texts = [escape(text) for text in dict.fromkeys(record.notices)]
        counted = [
            f"{escape(name)} = {formats.number(value, 3).rstrip('0').rstrip('.')}"
            for name, value in sorted(record.counters.items())
            if value
        ]
        texts += [", ".join(counted)] if counted else []
        internal = sorted(INTERNAL & record.facts.keys() - {"note"})
        texts += [f"{escape(name)}: {escape(record.facts[name])}" for name in internal]
        if texts:
            lines.append(f"- {code(record.identity.run_id)}")
            lines += [f"  - {text}" for text in texts]
    return _block(lines)


def notes(view: SuiteView) -> str:
    """What people noted about runs that are not in the training table."""
    trained = {r.identity.run_id for r in view.records if r.identity.task == "train"}
    lines: list[str] = []
    for run, texts in view.notes.items():
        if run and run not in trained:
            lines += [f"- {code(run)}: {prose(text)}" for text in texts]
    return _block(lines)


def _block(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n" if lines else ""
