"""Frames of the recording: texts, dots, pictures and colours of a terminal as SVG."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pyte

from tests.workbench.tui import recording

SVG = "{http://www.w3.org/2000/svg}"


def draw(text: str) -> recording.Frame:
    screen = pyte.Screen(20, 2)
    pyte.Stream(screen).feed(text)
    cells = tuple(tuple(screen.buffer[y][x] for x in range(20)) for y in range(2))
    return recording.Frame(cells, 2.0)


def test_frames_follow_each_other_and_are_whole_svg(tmp_path: Path) -> None:
    first = draw("a <b> \x1b[38;2;1;2;3m⠁⠈\x1b[0m \x1b[1;7mX\x1b[0m")
    second = draw("\x1b[38;2;255;0;0;48;2;0;255;0m▀▀\x1b[0m")
    recording.write_svg([first, second], tmp_path / "tour.svg")
    root = ET.parse(tmp_path / "tour.svg").getroot()
    assert [group.get("visibility") for group in root.iter(f"{SVG}g")] == [None, "hidden"]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts == ["a\N{NO-BREAK SPACE}<b>", "X"]
    (dots,) = root.iter(f"{SVG}path")
    assert dots.get("stroke") == "#010203"
    assert dots.get("d", "").count("M") == 2
    fills = [rect.get("fill") for rect in root.iter(f"{SVG}rect")][1:]
    assert fills == [f"#{recording.INK}", "#00ff00", "#ff0000"]
    style = root.findtext(f"{SVG}style", "")
    assert "50.000%{visibility:visible}100%{visibility:visible}" in style
    assert "animation:f1 4s step-end infinite" in style


def test_the_cast_has_a_header_and_events_by_rising_time(tmp_path: Path) -> None:
    made = recording.Recording([(0.0, "\x1b[2J"), (1.5, "한글")], [draw("x")])
    recording.write_cast(made, tmp_path / "tour.cast")
    header, *events = map(json.loads, (tmp_path / "tour.cast").read_text("utf-8").splitlines())
    assert (header["version"], header["width"], header["height"]) == (2, 120, 36)
    assert events == [[0.0, "o", "\x1b[2J"], [1.5, "o", "한글"], [2.0, "o", ""]]
