"""Sections of a report about models, environment, settings and notices.

Each function takes records and returns Markdown; an empty string means that there is nothing to
report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from results.records import message_translations
from results.records.schema import Environment, RunRecord
from results.records.suite_view import SuiteView
from results.tables import captioning, run_cost
from results.text import formats
from results.text.table import (
    Table,
    TableCell,
    TableColumn,
    code,
    escape,
    join_lines,
    prose,
    render_markdown,
    sentence,
)
from results.text.translations import translate

MAX_SETTING_COLUMNS: Final = 10
"""Settings that a table of runs has room for."""
MAX_NOTICES: Final = 20
"""A report shows this many distinct notices; the rest are counted. The appendix has them all."""

INTERNAL_FACTS: Final = frozenset({"trainable", "openmp_wait", "note"})
"""Facts that are not of a model: in the appendix; `note` is in the training table."""

NO_GPU: Final = 'CUDA_VISIBLE_DEVICES=""'

SETTINGS_PER_LINE: Final = 5
"""Settings a line: thirty of them one below the other would push the results off the page."""


def subsets(records: Sequence[RunRecord], lang: str) -> str:
    """Every subset once, with its samples and fingerprint."""
    record_of_subset: dict[str, RunRecord] = {}
    for record in records:
        earlier = record_of_subset.get(record.identity.subset)
        if earlier is None or not earlier.samples:
            record_of_subset[record.identity.subset] = record
    columns = (
        TableColumn(translate("column.subset", lang)),
        TableColumn(translate("loaded samples", lang), right=True),
        TableColumn(translate("report.fingerprint", lang)),
    )
    body = tuple(
        (TableCell(name, "code"), run_cost.samples_cell(r, lang), _fingerprint(r, lang))
        for name, r in record_of_subset.items()
    )
    return render_markdown(Table(columns, body)) if body else ""


def _fingerprint(record: RunRecord, lang: str) -> TableCell:
    fingerprint = record.identity.subset_fingerprint
    return (
        TableCell(fingerprint[:16], "code")
        if fingerprint
        else TableCell(translate("report.not recorded", lang), "unknown")
    )


def models(records: Sequence[RunRecord], lang: str) -> str:
    """Every model once: revision, parameters, and facts from its engine."""
    lines = []
    for name in dict.fromkeys(r.identity.model for r in records):
        records_of_model = [r for r in records if r.identity.model == name]
        parts = [
            code(name),
            *_revision(records_of_model, lang),
            *_parameters(records_of_model, lang),
        ]
        lines.append("- " + ", ".join(parts))
        lines += [f"  - {line}" for line in _model_facts(records_of_model, lang)]
    return join_lines(lines)


def _model_facts(records: Sequence[RunRecord], lang: str) -> Iterator[str]:
    """Each fact once; one that differs between the model's runs with what it is of."""
    runs_of_value: dict[str, dict[str, list[RunRecord]]] = {}
    for record in records:
        for key, value in record.facts.items():
            if key not in INTERNAL_FACTS:
                runs_of_value.setdefault(key, {}).setdefault(value, []).append(record)
    for key, values in runs_of_value.items():
        names = _tell_apart(list(values.values()))
        for value, name in zip(values, names, strict=True):
            title = escape(message_translations.localize_fact_name(key, lang)) + (
                f" ({name})" if len(values) > 1 else ""
            )
            yield f"{title}: {sentence(message_translations.localize(value, lang))}"


def _tell_apart(groups: Sequence[Sequence[RunRecord]]) -> list[str]:
    """Names of groups of runs: their subsets, where these differ, else their labels or ids."""
    subsets = [list(dict.fromkeys(r.identity.subset for r in group)) for group in groups]
    if len({name for names in subsets for name in names}) == sum(map(len, subsets)):
        return [", ".join(map(code, names)) for names in subsets]
    return [
        _join_runs(list(dict.fromkeys(r.identity.label or r.identity.run_id for r in group)))
        for group in groups
    ]


def _revision(records: Sequence[RunRecord], lang: str) -> list[str]:
    revisions = dict.fromkeys(
        r.identity.model_revision for r in records if r.identity.model_revision
    )
    return [translate("report.revision", lang).format(code(revision)) for revision in revisions]


def _parameters(records: Sequence[RunRecord], lang: str) -> list[str]:
    """One entry: variants of a model differ in size, and their sizes are then a range."""
    counted = [r for r in records if r.parameters is not None]
    if not counted:
        return []
    total = _format_range([r.parameters for r in counted])
    trained = _format_range([r.trainable_parameters for r in counted])
    return [translate("report.parameters", lang).format(total, trained)]


def _format_range(values: Sequence[int | None]) -> str:
    sizes = sorted({value for value in values if value is not None})
    ends = dict.fromkeys(formats.parameters(value) for value in (sizes[:1] + sizes[-1:]))
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
        "host": lambda r: _format_host(r.environment),
    }
    values = {
        translate(f"report.{name}", lang): _common_value(records, get)
        for name, get in items.items()
    }
    lines = [f"- {title}: {text}" for title, text in values.items() if text]
    if missing := [title for title, text in values.items() if not text]:
        reason = formats.n_a(translate("report.not recorded", lang))
        lines.append(f"- {', '.join(missing)}: {reason}")
    return join_lines(lines)


def _common_value(records: Sequence[RunRecord], value: Callable[[RunRecord], str]) -> str:
    """The value common to all runs that have one, or every value with its runs."""
    runs_of_value: dict[str, list[str]] = {}
    for record in records:
        if text := value(record):
            runs_of_value.setdefault(text, []).append(record.identity.run_id)
    if len(runs_of_value) <= 1:
        return escape(next(iter(runs_of_value), ""))
    return "; ".join(f"{escape(text)} ({_join_runs(runs)})" for text, runs in runs_of_value.items())


def _join_runs(runs: Sequence[str]) -> str:
    names = ", ".join(map(code, runs[:3]))
    return names if len(runs) <= 3 else f"{names}, … {len(runs)}"


def _gpus(record: RunRecord, lang: str) -> str:
    machine = record.environment
    names = [
        gpu.name + (f" ({formats.size(gpu.memory_bytes)})" if gpu.memory_bytes else "")
        for gpu in machine.gpus
    ]
    text = ", ".join(names) or (formats.n_a(machine.gpu_reason) if machine.gpu_reason else "")
    return f"{text} — {translate('report.stand-in', lang)}" if machine.nvml_stub else text


def _cpu(record: RunRecord, lang: str) -> str:
    cores = record.environment.cores
    counted = [translate("report.cores", lang).format(cores)] if cores else []
    return ", ".join([part for part in (record.environment.cpu, *counted) if part])


def _format_host(machine: Environment) -> str:
    host = ", ".join(machine.nodes) or machine.hostname
    return " · ".join([host, *([f"slurm {machine.job}"] if machine.job else [])])


def _git(record: RunRecord, lang: str) -> str:
    commit = record.environment.git_commit[:12]
    dirty = commit and record.environment.git_dirty
    return translate("report.dirty", lang).format(commit) if dirty else commit


def fixed_settings(records: Sequence[RunRecord], lang: str) -> str:
    """`name=value` of every setting that all runs of an engine share, one list an engine."""
    blocks = []
    engines = dict.fromkeys(r.identity.engine for r in records)
    for engine in engines:
        records_of_engine = [r for r in records if r.identity.engine == engine]
        shared_settings, _ = _compare_settings(records_of_engine)
        set_values = [
            code(f"{name}={value}") for name, value in shared_settings.items() if value != "null"
        ]
        unset = [code(name) for name, value in shared_settings.items() if value == "null"]
        lines = [f"{code(engine)}:", ""] if len(engines) > 1 else []
        visible = {r.environment.cuda_visible_devices for r in records_of_engine}
        if len(visible) == 1 and (devices := visible.pop()) is not None:
            set_values = [
                code(f"CUDA_VISIBLE_DEVICES={devices}" if devices else NO_GPU),
                *set_values,
            ]
        starts = range(0, len(set_values), SETTINGS_PER_LINE)
        lines += [
            f"- {', '.join(set_values[start : start + SETTINGS_PER_LINE])}" for start in starts
        ]
        if unset:
            lines.append(f"- {translate('report.unset', lang)}: {', '.join(unset)}")
        blocks.append(join_lines(lines))
    return "\n".join(block for block in blocks if block)


def differing_settings(records: Sequence[RunRecord], lang: str) -> str:
    """Table of the settings that differ between runs of an engine; of many a list of the runs."""
    tables = []
    for engine in dict.fromkeys(r.identity.engine for r in records):
        records_of_engine = [r for r in records if r.identity.engine == engine]
        _, names = _compare_settings(records_of_engine)
        if not names:
            continue
        if len(names) > MAX_SETTING_COLUMNS:
            tables.append(_list_settings(records_of_engine, names))
            continue
        columns = (
            TableColumn(translate("column.run_id", lang)),
            *(TableColumn(code(name)) for name in names),
        )
        body = tuple(
            (TableCell(r.identity.run_id, "code"), *_values(r, names)) for r in records_of_engine
        )
        tables.append(render_markdown(Table(columns, body)))
    return "\n".join(tables)


def _list_settings(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """A line for runs with the same settings: their ids, then those of `names` that are set."""
    runs_of_settings: dict[str, list[str]] = {}
    for record in records:
        settings = _run_settings(record)
        chosen = [
            code(f"{name}={settings[name]}")
            for name in names
            if settings.get(name) not in (None, "", "null", "[]")
        ]
        runs_of_settings.setdefault(", ".join(chosen), []).append(record.identity.run_id)
    return join_lines([
        f"- {_join_runs(runs)}: {text}" for text, runs in runs_of_settings.items()
    ])  # fmt: skip


def _compare_settings(records: Sequence[RunRecord]) -> tuple[dict[str, str], list[str]]:
    """Settings with one value for all runs, and the names of the others."""
    settings_of_runs = [_run_settings(record) for record in records]
    names = dict.fromkeys(name for settings in settings_of_runs for name in settings)
    values = {name: {settings.get(name) for settings in settings_of_runs} for name in names}
    shared_settings = {
        n: value
        for n in names
        if len(values[n]) == 1 and (value := settings_of_runs[0][n]) is not None
    }
    return shared_settings, [name for name in names if name not in shared_settings]


def _run_settings(record: RunRecord) -> dict[str, str]:
    settings: dict[str, Any] = {**record.identity.params, "seed": record.identity.seed}
    return {name: _format_setting(value) for name, value in settings.items()}


def _format_setting(value: object) -> str:
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _values(record: RunRecord, names: Sequence[str]) -> tuple[TableCell, ...]:
    settings = _run_settings(record)
    return tuple(
        TableCell(settings[n], "code") if n in settings else TableCell("–", "value") for n in names
    )


def notices(records: Sequence[RunRecord], lang: str) -> str:
    """Notices of the runs, each once: skipped images, truncated texts, retries."""
    runs_of_notice: dict[str, list[str]] = {}
    for record in records:
        for text in dict.fromkeys(record.notices):
            runs_of_notice.setdefault(text, []).append(record.identity.run_id)
    lines = [
        f"- {sentence(text)}{_run_suffix(runs, len(records))}"
        for text, runs in [*runs_of_notice.items()][:MAX_NOTICES]
    ]
    if len(runs_of_notice) > MAX_NOTICES:
        lines.append(
            f"- {translate('report.more', lang).format(len(runs_of_notice) - MAX_NOTICES)}"
        )
    return join_lines(lines)


def _run_suffix(runs: Sequence[str], total: int) -> str:
    return "" if len(runs) == total else f" ({_join_runs(runs)})"


def appendix(records: Sequence[RunRecord]) -> str:
    """By run: all notices, counters, and facts about the trained tensors."""
    lines = []
    for record in records:
        texts = [sentence(text) for text in dict.fromkeys(record.notices)]
        counted = [
            f"{escape(name)} = {formats.number(value, 3).rstrip('0').rstrip('.')}"
            for name, value in sorted(record.counters.items())
            if value
        ]
        texts += [", ".join(counted)] if counted else []
        internal = sorted(INTERNAL_FACTS & record.facts.keys() - {"note"})
        texts += [f"{escape(name)}: {escape(record.facts[name])}" for name in internal]
        if texts:
            lines.append(f"- {code(record.identity.run_id)}")
            lines += [f"  - {text}" for text in texts]
    return join_lines(lines)


def notes(view: SuiteView) -> str:
    """Notes about runs that no other table has."""
    listed = {r.identity.run_id for r in view.records if r.identity.task == "train"}
    listed |= {i.run_id for i in view.planned if i.engine == captioning.ENGINE}
    lines: list[str] = []
    for run, texts in view.notes.items():
        if run and run not in listed:
            lines += [f"- {code(run)}: {prose(text)}" for text in texts]
    return join_lines(lines)
