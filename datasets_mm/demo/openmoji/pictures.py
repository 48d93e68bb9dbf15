"""Images of OpenMoji-KB: each drawing rendered once, and the second image of its passages.

The query image is the coloured drawing. A passage has another image: an object's line layer alone,
a flag small and tilted on grey, or the outline of the country from countryinfo's geometry.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

SIDE = 224
"""Pixels: the input of CLIP's ViT-B/32 family."""

SVG = "http://www.w3.org/2000/svg"
COLOUR_LAYERS = frozenset({"color", "hair", "skin", "skin-shadow", "color-foreground"})


def render(svg: str) -> bytes:
    """PNG on white, SIDE x SIDE. System fonts stay out, so that machines agree."""
    import resvg_py

    return bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg, width=SIDE, height=SIDE, background="white", skip_system_fonts=True
        )
    )


def line_drawing(svg: Path) -> str:
    """The drawing's outline layer, without layers of colour."""
    root = _parse_svg(svg)
    for layer in list(root):
        if layer.get("id") in COLOUR_LAYERS:
            root.remove(layer)
    return ET.tostring(root, encoding="unicode")


def tilt(svg: Path) -> str:
    """The drawing at 60 % of its size, turned by 12 degrees, on grey."""
    root = _parse_svg(svg)
    turned = ET.Element(
        f"{{{SVG}}}g", {"transform": "translate(36 36) rotate(-12) scale(0.6) translate(-36 -36)"}
    )
    turned.extend(list(root))
    ground = ET.Element(f"{{{SVG}}}rect", {"width": "72", "height": "72", "fill": "#d8d8d8"})
    root[:] = [ground, turned]
    return ET.tostring(root, encoding="unicode")


def draw_outline(country: dict[str, Any]) -> str:
    """Map of the country's outline; "" when countryinfo has no geometry for it."""
    rings = _outer_rings(country.get("geoJSON") or {})
    if not rings:
        return ""
    points = [point for ring in rings for point in ring]
    west, east = min(x for x, _ in points), max(x for x, _ in points)
    south, north = min(y for _, y in points), max(y for _, y in points)
    # A degree of longitude shrinks with the latitude; that of the country's middle is used.
    narrow = max(math.cos(math.radians((south + north) / 2)), 0.1)
    scale = 64 / max((east - west) * narrow, north - south, 0.05)
    x0 = 36 - (east - west) * narrow * scale / 2
    y0 = 36 - (north - south) * scale / 2
    path = " ".join(
        "M"
        + "L".join(
            f"{x0 + (x - west) * narrow * scale:.2f},{y0 + (north - y) * scale:.2f}"
            for x, y in ring
        )
        + "Z"
        for ring in rings
    )
    return (
        f'<svg xmlns="{SVG}" viewBox="0 0 72 72"><rect width="72" height="72" fill="#dfeaf2"/>'
        f'<path d="{path}" fill="#8a9a5b" stroke="#222" stroke-width="0.6"/></svg>'
    )


def _parse_svg(svg: Path) -> ET.Element:
    # The drawings come from a pinned package; expat expands no external entities.
    return ET.fromstring(svg.read_text("utf-8"))  # noqa: S314


def _outer_rings(geometry: dict[str, Any]) -> list[list[tuple[float, float]]]:
    """Outer rings as (longitude, latitude); east of the date line is drawn as over 180 degrees."""
    rings = []
    for feature in geometry.get("features", ()):
        shape = feature["geometry"]
        polygons = (
            shape["coordinates"] if shape["type"] == "MultiPolygon" else [shape["coordinates"]]
        )
        rings += [[(float(x), float(y)) for x, y, *_ in polygon[0]] for polygon in polygons]
    longitudes = [x for ring in rings for x, _ in ring]
    if longitudes and max(longitudes) - min(longitudes) > 180:
        rings = [[(x + 360 if x < 0 else x, y) for x, y in ring] for ring in rings]
    return rings
