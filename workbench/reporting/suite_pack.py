"""A suite as one file for a colleague: packed without secrets, unpacked under another log root.

A pack is a ZIP archive: `manifest.json` (form, suite, runs), `records.jsonl`, `notes.jsonl`, and
the suite's folder. Passwords, tokens, the home folder's path and the host's name are replaced in
every text. Checkpoints are left out unless wanted. Data of the subsets are never in it, but
predictions hold questions and answers.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from datasets_mm.atomic_files import atomic_folder, atomic_path
from results.records import store
from results.text.secrets import mask_secrets
from workbench.suites.suite import SuiteError

FORM: Final = 1
MANIFEST: Final = "manifest.json"
RECORDS: Final = "records.jsonl"
NOTES: Final = "notes.jsonl"
LOG_ROOT_FILES: Final = {RECORDS: "results.jsonl", NOTES: "notes.jsonl"}
TEXTS: Final = (".json", ".jsonl", ".toml", ".log", ".csv", ".txt", ".md")
CHECKPOINTS: Final = "checkpoints"
MAX_BYTES: Final = 64 << 30
"""Of an unpacked pack: a larger one is no pack of ours."""
SHORTEST_HOST: Final = 4
"""A shorter name of a host is a word of other texts too."""
_SUITE_FILE: Final = re.compile(r"(?:plan\.toml|warden\.json|warden\.log|control\.jsonl)")


def pack_suite(
    folder: Path, target: Path, run_ids: frozenset[str] = frozenset(), *, checkpoints: bool = False
) -> int:
    """Write the pack of a suite; returns its bytes.

    Args:
        folder: The suite.
        target: The archive; replaced if it exists.
        run_ids: Only these runs; empty: all.
        checkpoints: With checkpoints and trained models.

    Raises:
        SuiteError: the suite is at work, or has none of the runs.
    """
    files = list(_list_files(folder, run_ids, checkpoints=checkpoints))
    runs = sorted({path.parts[1] for path in files if path.parts[0] == "runs"})
    if not runs:
        raise SuiteError(f"{folder.name}: no such run; `workbench results list` has the names")
    redact = _redactor(folder.parent)
    manifest = {"form": FORM, "suite": folder.name, "runs": runs}
    with atomic_path(target) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
        for name in (RECORDS, NOTES):
            lines = _lines_of_suite(folder, name, frozenset(runs))
            archive.writestr(name, "".join(redact(line) for line in lines))
        for path in files:
            _write_file(archive, folder, path, redact)
    return target.stat().st_size


def unpack_suite(source: Path, log_root: Path) -> Path:
    """Put a packed suite under a log root, with its records and notes; returns its folder.

    Raises:
        SuiteError: the file is no pack, is damaged or unsafe, or the suite is there already.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            return _unpack(archive, source, log_root)
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
        raise SuiteError(f"{source}: cannot be unpacked ({error}); ask for it again") from None


def _list_files(
    folder: Path, run_ids: frozenset[str], *, checkpoints: bool
) -> Iterator[PurePosixPath]:
    """Files of the pack, relative to the suite; links are left out."""
    for path in sorted(folder.rglob("*")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        if path.is_symlink() or not path.is_file():
            continue
        if len(relative.parts) == 1:
            if _SUITE_FILE.fullmatch(relative.name):
                yield relative
            continue
        is_chosen = relative.parts[0] == "runs" and (not run_ids or relative.parts[1] in run_ids)
        if is_chosen and (checkpoints or CHECKPOINTS not in relative.parts):
            yield relative


def _lines_of_suite(folder: Path, name: str, run_ids: frozenset[str]) -> Iterator[str]:
    """Lines of the log root's records or notes that belong to the packed runs."""
    path = folder.parent / LOG_ROOT_FILES[name]
    if path.is_file():
        for line in path.read_text("utf-8", "replace").split("\n"):
            suite, run_id = _line_key(line)
            if suite == folder.name and (not run_id or run_id in run_ids):
                yield line + "\n"


def _line_key(line: str | bytes) -> tuple[str, str]:
    """Suite and run of a record or a note; empty: the line is neither."""
    try:
        entry = json.loads(line)
        key = entry.get("identity", entry)
        return str(key["suite"]), str(key.get("run_id", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", ""


def _redactor(log_root: Path) -> Callable[[str], str]:
    """Replaces secrets, paths below the home, and the host's name."""
    home, host = str(Path.home()), socket.gethostname()
    names = [(re.escape(str(log_root)), "LOG_ROOT")]
    names += [(re.escape(home) + r"(?=[/\"'\s:]|$)", "~")] if home != "/" else []
    names += [(rf"\b{re.escape(host)}\b", "host")] if len(host) >= SHORTEST_HOST else []

    def redact(text: str) -> str:
        text = mask_secrets(text)
        for pattern, name in names:
            text = re.sub(pattern, name, text)
        return text

    return redact


def _write_file(
    archive: zipfile.ZipFile, folder: Path, path: PurePosixPath, redact: Callable[[str], str]
) -> None:
    name = f"{folder.name}/{path}"
    if path.suffix not in TEXTS:
        archive.write(folder / path, name)
        return
    with (
        (folder / path).open(encoding="utf-8", errors="replace", newline="") as text,
        archive.open(name, "w", force_zip64=True) as entry,
    ):
        for line in text:
            entry.write(redact(line).encode())


def _unpack(archive: zipfile.ZipFile, source: Path, log_root: Path) -> Path:
    manifest = json.loads(archive.read(MANIFEST))
    suite = _check_manifest(manifest, source)
    folder = log_root / suite
    if folder.exists():
        raise SuiteError(f"{folder} is there already; give another --log-root")
    infos = [info for info in archive.infolist() if info.filename.startswith(f"{suite}/")]
    if sum(info.file_size for info in infos) > MAX_BYTES:
        raise SuiteError(f"{source}: larger than {MAX_BYTES >> 30} GiB")
    lines_of_file = {
        log_root / target: [line for line in archive.read(name).splitlines()
                            if _line_key(line)[0] == suite]
        for name, target in LOG_ROOT_FILES.items()
    }  # fmt: skip
    log_root.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as draft:
        for info in infos:
            path = _safe_path(draft, info.filename.removeprefix(f"{suite}/"), source)
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as entry, path.open("xb") as file:
                _copy(entry, file, info.file_size)
    for path, lines in lines_of_file.items():
        for line in lines:
            store.append_line(path, line)
    return folder


def _check_manifest(manifest: Any, source: Path) -> str:
    """The suite's name."""
    if not isinstance(manifest, dict) or manifest.get("form") != FORM:
        raise SuiteError(f"{source}: a pack of another version; update the workbench")
    suite = str(manifest.get("suite"))
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", suite):
        raise SuiteError(f"{source}: the suite's name is unsafe")
    return suite


def _safe_path(folder: Path, name: str, source: Path) -> Path:
    """The path of an entry; it never leaves the folder."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise SuiteError(f"{source}: unsafe name {name!r}")
    return folder.joinpath(*parts)


def _copy(entry: IO[bytes], file: IO[bytes], size: int) -> None:
    """Copy at most the size that the archive states."""
    shutil.copyfileobj(entry, file)
    if file.tell() != size:
        raise ValueError("a file has another size than stated")
