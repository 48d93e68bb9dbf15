"""A recording of the screens over a real log root: an asciinema file and an animated SVG of it.

cd FOLDER_WITH_bench_logs && python -m tests.workbench.tui.recording OUT [--log-root bench_logs]

The log root must have a suite of two completed retrieval runs. Keys are pressed in a
pseudo-terminal; what the screen paints is `tour.cast` (asciinema, version 2), and the picture after
each key a frame of `tour.svg`. No frame shows an invented number.
"""

from __future__ import annotations

import argparse
import codecs
import json
import os
import pty
import select
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

import pyte

from tests.workbench.tui.picture import DOTS

WIDTH, HEIGHT = 120, 36
CELL, LINE = 8.4, 17.0
HARD_SPACE = "\N{NO-BREAK SPACE}"
"""Browsers make one of several blanks."""
PAPER, INK = "121212", "d0d0d0"
UP, DOWN, LEFT, ESCAPE = "\x1b[A", "\x1b[B", "\x1b[D", "\x1b"
TOUR = (
    ((), 4.0, "workbench run "),  # Plan
    (("2",), 3.0, "step time"),  # Live
    ((" ", UP, " "), 2.5, "B "),  # two runs on the same charts
    (("x",), 2.0, "over time"),
    ((LEFT,) * 12, 2.0, "Events up to"),  # at an earlier moment
    ((ESCAPE,), 1.0, "Log"),
    (("3",), 2.5, "newest first"),  # Results
    ((" ", DOWN, " "), 1.5, "2 marked"),
    (("C",), 3.5, "recall@1"),  # Compare
    (("2",), 3.0, "step time"),  # curves over each other
    (("3",), 1.0, "case"),
    (("\r",), 4.0, "question"),  # a case with its pictures
    ((ESCAPE, ESCAPE), 0.6, "newest first"),
    (("b",), 4.0, "question"),  # single items, the worst first
    ((ESCAPE,), 0.6, "newest first"),
    (("4",), 2.5, "emoji_val"),  # Data
)
"""Keys, seconds that the picture after them stays, and what it shows."""
KEY_SECONDS = 0.2
QUIET_SECONDS = 1.5
"""A picture is complete when nothing was painted for so long."""
LIMIT_SECONDS = 60.0


class Frame(NamedTuple):
    """A picture and how long it stays."""

    screen: tuple[tuple[pyte.screens.Char, ...], ...]
    seconds: float


@dataclass
class Recording:
    """Output with its times, and pictures."""

    events: list[tuple[float, str]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)


def record_tour(log_root: Path) -> Recording:
    """Press the keys of the tour; waiting is left out of the times."""
    screen, recording, t = pyte.Screen(WIDTH, HEIGHT), Recording(), 0.0
    stream, decoder = pyte.Stream(screen), codecs.getincrementaldecoder("utf-8")("replace")
    config = tempfile.mkdtemp()  # nothing that a person chose before
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(WIDTH), LINES=str(HEIGHT))
        os.environ.update(WORKBENCH_PICTURES="half", WORKBENCH_CONFIG=config)
        words = ["-m", "workbench", "--log-root", str(log_root)]
        os.execv(sys.executable, [sys.executable, *words])
    for keys, seconds, text in TOUR:
        for key in keys:
            os.write(terminal, key.encode())
            _read(terminal, decoder, recording, stream, t, KEY_SECONDS)
            t += KEY_SECONDS
        end = time.monotonic() + LIMIT_SECONDS
        while not any(text in line for line in screen.display):
            if time.monotonic() > end:
                raise SystemExit(f"{text!r} is not on the screen:\n" + "\n".join(screen.display))
            _read(terminal, decoder, recording, stream, t, KEY_SECONDS)
        _read(terminal, decoder, recording, stream, t, QUIET_SECONDS)
        cells = tuple(tuple(screen.buffer[y][x] for x in range(WIDTH)) for y in range(HEIGHT))
        recording.frames.append(Frame(cells, seconds))
        t += seconds
    os.write(terminal, b"q")
    while _read_some(terminal, 3.0):
        pass
    os.waitpid(pid, 0)
    os.close(terminal)
    shutil.rmtree(config, ignore_errors=True)
    return recording


def _read(terminal, decoder, recording, stream, t: float, quiet: float) -> None:
    """Read until nothing comes for `quiet` seconds; all of it at the time `t`."""
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end and (data := _read_some(terminal, quiet)):
        text = decoder.decode(data)
        stream.feed(text)
        recording.events.append((t, text))


def _read_some(terminal: int, seconds: float) -> bytes:
    if not select.select([terminal], [], [], seconds)[0]:
        return b""
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the screen has ended
        return b""


def write_cast(recording: Recording, path: Path) -> None:
    """The asciinema file; painted at once, shown for as long as a frame stays."""
    header = {"version": 2, "width": WIDTH, "height": HEIGHT, "title": "workbench",
              "env": {"TERM": "xterm-256color"}}  # fmt: skip
    lines = [json.dumps(header)]
    lines += [json.dumps([round(t, 2), "o", text]) for t, text in recording.events]
    total = sum(frame.seconds for frame in recording.frames)
    lines.append(json.dumps([round(max(total, recording.events[-1][0]), 2), "o", ""]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_svg(frames: list[Frame], path: Path) -> None:
    """The frames one after the other, repeated for ever, by CSS alone."""
    total = sum(frame.seconds for frame in frames)
    styles, groups, begin = [], [], 0.0
    for number, frame in enumerate(frames):
        first, last = 100 * begin / total, 100 * (begin + frame.seconds) / total
        begin += frame.seconds
        hidden = "0%{visibility:hidden}" if number else ""
        after = f"{last:.3f}%{{visibility:hidden}}" if number < len(frames) - 1 else ""
        styles.append(
            f"@keyframes f{number}{{{hidden}{first:.3f}%{{visibility:visible}}{after}"
            f"100%{{visibility:{'hidden' if after else 'visible'}}}}}"
            f"#f{number}{{animation:f{number} {total:g}s step-end infinite}}"
        )
        shown = "" if number == 0 else ' visibility="hidden"'
        groups.append(f'<g id="f{number}"{shown}>{draw_screen(frame.screen)}</g>')
    width, height = WIDTH * CELL, HEIGHT * LINE
    path.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" '
        f'viewBox="-8 -8 {width + 16:g} {height + 16:g}">'
        f"<style>text{{font:14px DejaVu Sans Mono,Menlo,Consolas,monospace}}"
        f"path{{stroke-width:2.4;stroke-linecap:round;fill:none}}{''.join(styles)}</style>"
        f'<rect x="-8" y="-8" width="100%" height="100%" rx="8" fill="#{PAPER}"/>'
        f"{''.join(groups)}</svg>\n",
        encoding="utf-8",
    )


def draw_screen(screen: tuple[tuple[pyte.screens.Char, ...], ...]) -> str:
    """The cells as rectangles, texts and dots."""
    parts: list[str] = []
    for y, row in enumerate(screen):
        x = 0
        while x < len(row):
            end = x + 1
            while end < len(row) and _style(row[end]) == _style(row[x]):
                end += 1
            parts.append(_draw_run(row[x:end], x * CELL, y * LINE))
            x = end
    return "".join(parts)


def _style(char: pyte.screens.Char) -> tuple[str, str, bool]:
    ink, paper = (PAPER if char.bg == "default" else char.bg) if char.reverse else char.fg, char.bg
    if char.reverse:
        paper = INK if char.fg == "default" else char.fg
    return ink, paper, char.bold


def _draw_run(run, x: float, y: float) -> str:
    ink, paper, bold = _style(run[0])
    ink = INK if ink == "default" else ink
    text = "".join(char.data for char in run)
    parts = []
    if paper != "default":
        parts.append(
            f'<rect x="{x:.1f}" y="{y:g}" width="{len(run) * CELL:.1f}" height="{LINE:g}" '
            f'fill="#{paper}"/>'
        )
    if text and set(text) == {"▀"}:
        return "".join([*parts, f'<rect x="{x:.1f}" y="{y:g}" width="{len(run) * CELL:.1f}" '
                        f'height="{LINE / 2:g}" fill="#{ink}"/>'])  # fmt: skip
    if dots := _draw_dots(text, x, y):
        parts.append(f'<path stroke="#{ink}" d="{dots}"/>')
        text = "".join(" " if 0x2800 <= ord(c) < 0x2900 else c for c in text)
    if stripped := text.strip():
        lead = len(text) - len(text.lstrip())
        weight, shown = (' font-weight="bold"' if bold else ""), stripped.replace(" ", HARD_SPACE)
        parts.append(
            f'<text x="{x + lead * CELL:.1f}" y="{y + 13:g}" fill="#{ink}"{weight} '
            f'textLength="{len(stripped) * CELL:.1f}">{escape(shown)}</text>'
        )
    return "".join(parts)


def _draw_dots(text: str, x: float, y: float) -> str:
    dots = []
    for number, character in enumerate(text):
        code = ord(character) - 0x2800 if 0x2800 <= ord(character) < 0x2900 else 0
        for bit, column, row in DOTS:
            if code & bit:
                cx = x + (number + 0.28 + 0.48 * column) * CELL
                cy = y + LINE * (row + 0.65) / 4
                dots.append(f"M{cx:.1f} {cy:.1f}h0")
    return "".join(dots)


def main() -> None:
    """Record and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--log-root", type=Path, default=Path("bench_logs"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    recording = record_tour(options.log_root.absolute())
    write_cast(recording, options.out / "tour.cast")
    write_svg(recording.frames, options.out / "tour.svg")


if __name__ == "__main__":
    main()
