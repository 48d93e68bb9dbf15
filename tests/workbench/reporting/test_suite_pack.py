"""A suite as one file: whole, without secrets, and safe to open."""

from __future__ import annotations

import json
import socket
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engines.protocol import RunSpec
from results.records import notes, store
from tests.results.conftest import record
from workbench.cli.main import app
from workbench.reporting.suite_pack import MANIFEST, pack_suite, unpack_suite
from workbench.suites.suite import SuiteError

SUITE = "20261130-101500-demo-1a2b"
TOKEN = "hf_" + "a" * 30


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs with a token, the home's path and the host's name in their files."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-server-7")
    logs = tmp_path / "home" / "logs"
    suite = logs / SUITE
    for name in ("01-run", "02-run"):
        run = suite / "runs" / name
        (run / "predictions").mkdir(parents=True)
        (run / "checkpoints").mkdir()
        (run / "checkpoints" / "last.safetensors").write_bytes(b"weights")
        (run / "predictions" / "val.jsonl").write_text('{"id": "q1", "recall@1": 1.0}\n')
        (run / "engine.log").write_text(f"token {TOKEN} on gpu-server-7 at {tmp_path}/home/data\n")
        (run / "spec.json").write_text(json.dumps({"cache_root": f"{tmp_path}/home/.cache"}))
        for owner in (SUITE, "another-suite"):
            made = record(name, identity={"suite": owner}, folder=f"{owner}/runs/{name}")
            store.append_record(logs / "results.jsonl", made)
    (suite / "plan.toml").write_text('name = "demo"\n')
    (suite / "warden.lock").touch()
    (suite / "runs" / "01-run" / "link").symlink_to("/etc/passwd")
    note = notes.Note(suite=SUITE, run_id="01-run", kind="finding", text="좋음\u2028끝", wall=1.0)
    notes.append_note(logs / "notes.jsonl", note)
    return suite


def records_of(log_root: Path) -> list[tuple[str, str]]:
    return [
        (r.identity.suite, r.identity.run_id)
        for r in store.read_records(log_root / "results.jsonl").all()
    ]


def test_a_packed_suite_is_whole_elsewhere(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "demo.zip"
    assert pack_suite(folder, target) == target.stat().st_size
    there = unpack_suite(target, tmp_path / "colleague")
    files = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    each = ("engine.log", "spec.json", "predictions/val.jsonl")
    assert files == {"plan.toml", *(f"runs/{n}/{e}" for n in ("01-run", "02-run") for e in each)}
    assert records_of(there.parent) == [(SUITE, "01-run"), (SUITE, "02-run")]
    (note,) = notes.read_notes(there.parent / "notes.jsonl")
    assert note.text == "좋음\u2028끝"
    with pytest.raises(SuiteError, match="is there already"):
        unpack_suite(target, there.parent)


def test_no_secret_no_home_no_host_is_in_it(folder: Path, tmp_path: Path) -> None:
    pack_suite(folder, tmp_path / "demo.zip")
    with zipfile.ZipFile(tmp_path / "demo.zip") as archive:
        everything = b"".join(archive.read(name) for name in archive.namelist())
    for secret in (TOKEN, str(tmp_path), "gpu-server-7"):
        assert secret.encode() not in everything
    assert b"token [secret] on host at ~/data" in everything


def test_a_run_is_packed_by_each_of_its_names(folder: Path, tmp_path: Path) -> None:
    for run_id, label in (("01-run", ""), ("02-run", "E5-v2")):
        spec = RunSpec(suite=SUITE, run_id=run_id, engine="probe", subset="none", model="none",
                       label=label, params={}, cache_root="cache")  # fmt: skip
        (folder / "runs" / run_id / "spec.json").write_text(spec.model_dump_json())
    target, run = tmp_path / "run.zip", ["pack", "--log-root", str(folder.parent)]
    for name in ("E5-v2", f"{SUITE}/02"):
        done = CliRunner().invoke(app, [*run, name, "--out", str(target)])
        assert done.exit_code == 0, done.output
        assert json.loads(zipfile.ZipFile(target).read(MANIFEST))["runs"] == ["02-run"]
    lost = CliRunner().invoke(app, [*run, "another-suite"])
    assert "another-suite has no folder here" in str(lost.exception)


def test_one_run_and_its_checkpoints(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "run.zip"
    pack_suite(folder, target, frozenset({"02-run"}), checkpoints=True)
    there = unpack_suite(target, tmp_path / "colleague")
    assert [path.name for path in (there / "runs").iterdir()] == ["02-run"]
    assert (there / "runs" / "02-run" / "checkpoints" / "last.safetensors").is_file()
    assert records_of(there.parent) == [(SUITE, "02-run")]
    with pytest.raises(SuiteError, match="no such run"):
        pack_suite(folder, target, frozenset({"09-run"}))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({}, "cannot be unpacked"),
        ({MANIFEST: '{"form": 2}'}, "another version"),
        ({MANIFEST: '{"form": 1, "suite": "../x"}'}, "name is unsafe"),
        (
            {
                MANIFEST: '{"form": 1, "suite": "s"}',
                "records.jsonl": "",
                "notes.jsonl": "",
                "s/../../evil": "x",
            },
            "unsafe name",
        ),
        ({MANIFEST: '{"form": 1, "suite": "s"}', "s/a": "x"}, "cannot be unpacked"),  # no records
    ],
)
def test_what_is_no_safe_pack_leaves_nothing(
    entries: dict[str, str], reason: str, tmp_path: Path
) -> None:
    source = tmp_path / "evil.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for name, text in entries.items():
            archive.writestr(name, text)
    with pytest.raises(SuiteError, match=reason):
        unpack_suite(source, tmp_path / "logs")
    assert not (tmp_path / "evil").exists()
    assert not list((tmp_path / "logs").glob("*"))


def test_a_torn_file_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    pack_suite(folder, tmp_path / "demo.zip")
    (tmp_path / "torn.zip").write_bytes((tmp_path / "demo.zip").read_bytes()[:-40])
    for name in ("torn.zip", "missing.zip"):
        with pytest.raises(SuiteError, match="cannot be unpacked"):
            unpack_suite(tmp_path / name, tmp_path / "logs")


def test_records_of_other_suites_do_not_come_with_it(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "pack.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr(MANIFEST, '{"form": 1, "suite": "s"}')
        archive.writestr("s/plan.toml", "")
        archive.writestr("records.jsonl", (folder.parent / "results.jsonl").read_text())
        archive.writestr("notes.jsonl", "")
    unpack_suite(source, tmp_path / "logs")
    assert not (tmp_path / "logs" / "results.jsonl").exists()
