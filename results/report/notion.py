"""A report as a ZIP file that Notion imports: one page, its figures and pictures beside it.

Notion takes plain tables of GitHub's Markdown and pictures from within the archive, and neither
HTML nor SVG: folds become headings, figures PNG.
"""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path
from typing import Final

from results.report.html import FOLD
from results.report.pictures import use_image_syntax

IMAGE: Final = re.compile(r"(!\[[^\]]*\]\()([^)\s]+)(?: \"=\d+\")?(\))")
EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""Time of every entry: the same report gives the same bytes."""


def render_notion(markdown: str, folder: Path, name: str) -> bytes:
    """The archive.

    Args:
        markdown: The report.
        folder: Where its figures and pictures lie; links that lead outside stay text.
        name: File name of the page in the archive.
    """
    files: dict[str, bytes] = {}

    def include(match: re.Match[str]) -> str:
        link = re.sub(r"\.svg$", ".png", match[2])
        path = (folder / link).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return match[0]
        files[link] = path.read_bytes()
        return f"{match[1]}{link}{match[3]}"

    page = IMAGE.sub(include, use_image_syntax(markdown))
    page = FOLD.sub(lambda match: f"## {match['title']}" if match["title"] else "", page)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in [(name, page.encode()), *sorted(files.items())]:
            info = zipfile.ZipInfo(entry, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return out.getvalue()
