"""Options shared by several commands."""

from __future__ import annotations

import contextlib
import math
import re
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
import typer.core

from workbench.cli import completion
from workbench.exit_codes import ExitCode


def print_message(sentence: str) -> None:
    """Print a message of a command to stderr."""
    from results.text.sanitize import clean_line

    typer.echo(f"workbench: {clean_line(sentence, 2000)}", err=True)


def fail(sentence: str) -> NoReturn:
    """Print why a command cannot be carried out; exit code 2."""
    print_message(sentence)
    raise typer.Exit(ExitCode.USAGE)


def parse_folder(text: str) -> Path:
    """A folder as typed.

    Raises:
        typer.BadParameter: the text is empty, as an unset variable of the shell is.
    """
    if not text.strip():
        raise typer.BadParameter("is empty; is a variable of the shell not set?")
    return Path(text)


def parse_language(text: str) -> str:
    """A language of reports and tables.

    Raises:
        typer.BadParameter: there is no such language.
    """
    from results.text.translations import LANGS

    if text not in LANGS:
        raise typer.BadParameter(f"'{text}' is not known; use {' or '.join(LANGS)}")
    return text


FOLDER: Final[dict[str, Any]] = {"parser": parse_folder, "metavar": "DIRECTORY"}
"""Arguments of `typer.Option` for a folder."""


def parse_duration(text: str) -> float:
    """Seconds of `11h30m`, `90m`, `45s` or `11:30:00`.

    Raises:
        typer.BadParameter: it is none of these, or 0.
    """
    for pattern in (r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", r"(\d+):([0-5]\d):([0-5]\d)"):
        if match := re.fullmatch(pattern, text.strip()):
            hours, minutes, seconds = (int(part or 0) for part in match.groups())
            if total := 3600 * hours + 60 * minutes + seconds:
                return float(total)
    raise typer.BadParameter(f"'{text}' is no duration; write 11h30m, 90m or 11:30:00")


def parse_seconds(text: str) -> float:
    """Seconds of `5`, `0.5`, or a duration as `90s` or `5m`.

    Raises:
        typer.BadParameter: it is neither, or not above 0.
    """
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    return parse_duration(text)


def language_defaults(command: Any, lang: str) -> dict[str, Any]:
    """Defaults of the commands below a command: `--lang ko` before one is as good as after it."""
    commands: dict[str, Any] = getattr(command, "commands", {})
    below: dict[str, Any] = {name: language_defaults(each, lang) for name, each in commands.items()}
    return below or {"lang": lang}


LogRoot = Annotated[
    Path | None,
    typer.Option(
        "--log-root",
        help="Where suites live; default: bench_logs here.",
        **FOLDER,
    ),
]
Language = Annotated[
    str, typer.Option("--lang", parser=parse_language, metavar="LANGUAGE", help="en or ko.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines on stdout.")]
KeepDone = Annotated[
    bool,
    typer.Option(
        "--keep-done", help="Leave out runs that the log root has completed with equal settings."
    ),
]
After = Annotated[
    str | None,
    typer.Option(
        "--after",
        metavar="SUITE",
        help="Start the first run when this suite has ended.",
        autocompletion=completion.complete_suites,
    ),
]
WorkingSuiteName = Annotated[
    str | None,
    typer.Argument(metavar="[SUITE]", help="A name or a part of it; default: the one at work."),
]
PlanFile = Annotated[Path | None, typer.Argument(metavar="[PLAN.toml]")]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset", "-p", help="A preset; see `workbench presets`.",
        autocompletion=completion.complete_presets,
    ),
]  # fmt: skip
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine", "-e", help="Engine; may be repeated.",
        autocompletion=completion.complete_engines,
    ),
]  # fmt: skip
Subsets = Annotated[
    list[str] | None,
    typer.Option(
        "--subset", "-d", help="Subset, see `workbench data list`; may be repeated.",
        autocompletion=completion.complete_subsets,
    ),
]  # fmt: skip
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="Model, see `workbench models`; may be repeated.",
        autocompletion=completion.complete_models,
    ),
]  # fmt: skip
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting of the engine.",
        autocompletion=completion.complete_settings,
    ),
]  # fmt: skip
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", help="Seed (42); every run is made once with each.")
]
Repeats = Annotated[
    int | None, typer.Option("--repeats", min=1, help="How often everything is repeated.")
]
Devices = Annotated[
    list[str] | None,
    typer.Option("--device", help="GPU, by index or UUID (GPU-…, MIG-…); may be repeated."),
]
Lanes = Annotated[
    str | None,
    typer.Option(
        "--lanes",
        metavar="all|N|0,1,3",
        help="Runs at the same time: on all GPUs (or cores), on N of them, or on these GPUs.",
    ),
]
GpusPerRun = Annotated[
    int | None, typer.Option("--gpus-per-run", min=1, help="GPUs of a lane, for several processes.")
]
NoGpu = Annotated[bool, typer.Option("--cpu", help="No GPU, whatever the plan names.")]
TaskName = Annotated[
    str | None, typer.Option("--task", help="What the engine does: train (first), evaluate, …")
]
Name = Annotated[str | None, typer.Option("--name", help="Name of the suite.")]
Label = Annotated[str | None, typer.Option("--label", help="Name of the experiment.")]
Headless = Annotated[
    bool, typer.Option(help="No live table: a line at each phase, then after 1, 10, 30, 60 s.")
]
ProgressInterval = Annotated[
    float | None,
    typer.Option(
        "--progress-interval",
        parser=parse_seconds,
        metavar="SECONDS",
        help="Between two progress lines, or rows of --json: 5, 90s, 5m; default: growing.",
    ),
]
Detach = Annotated[bool, typer.Option(help="Return at once; the suite goes on.")]
CostProbe = Annotated[
    int | None,
    typer.Option(
        "--cost-probe",
        metavar="[N]",
        help="Train only N timed steps (200), then forecast the epoch and the run.",
    ),
]
MaxUncertainty = Annotated[
    str | None,
    typer.Option("--max-uncertainty", help="End a cost probe when it is this sure, ±: 2%."),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(
        "--until",
        "--time-limit",
        parser=parse_duration,
        metavar="DURATION",
        help="Stop at a checkpoint after 11h30m, exit with 75; `workbench resume` goes on.",
    ),
]
Rows = Annotated[int | None, typer.Option("--rows", min=2, help="Rows; default: the subset's.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Markdown on stdout.")]
Share = Annotated[bool, typer.Option(help="Run beside other suites on the device.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the runs, start none.")]


GpuName = Annotated[
    str,
    typer.Option(
        "--gpu", help="T4, A10G, A100-80, …, 24GiB@8.6 (capability), or g5.xlarge; default: this."
    ),
]
RefuseOn = Annotated[
    list[str] | None,
    typer.Option(
        "--refuse-on", metavar="RULE", help="Start nothing on a fault of this audit rule."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Start even what will not fit.")]


class RunCommand(typer.core.TyperCommand):
    """`workbench run`: an optional number behind `--cost-probe`, earlier names of options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Add the default number to a bare `--cost-probe`, which the plan file may follow."""
        from workbench.cli import renamed_options

        args = renamed_options.rename_options(args)
        bare = "--cost-probe"
        for index, word in enumerate(args):
            following = args[index + 1] if index + 1 < len(args) else ""
            if word == bare and not following.lstrip("+-").replace(".", "").isdigit():
                from engines.protocol import Probe

                args[index] = f"{bare}={Probe().steps}"
        return super().parse_args(ctx, args)
