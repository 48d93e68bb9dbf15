"""The documents as a static site: every link is checked, then MkDocs builds it.

    python .ci/site.py --check         only: links and anchors between the pages, files they name
    python .ci/site.py build/site      the pages for MkDocs: docs/ and the documents of the root

Links out of docs/ (README, benchmarks/, examples/) lead to copies below the site's root.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {
    "README.md": "index.md", "README.ko.md": "ko/index.md", "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md",
    "benchmarks/RESULTS.md": "figures.md", "examples/ci/README.md": "ci.md",
    "examples/README.md": "examples.md",
}  # fmt: skip
LINK = re.compile(r"(!?\[[^\]]*\])\(([^()\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
FILE = re.compile(
    r"`((?:\.ci|benchmarks|datasets_mm|engines|examples|results|tests|workbench)/[\w./-]+"
    r"\.(?:py|toml|md|sh))`"
)
INVENTED = re.compile("NAME|engines/mine/")
"""In paths of files that the reader makes."""


def site_pages() -> dict[Path, Path]:
    """Page of the repository -> its path in the site, both relative."""
    pages = {path.relative_to(ROOT): path.relative_to(ROOT / "docs")
             for path in sorted((ROOT / "docs").rglob("*.md"))}  # fmt: skip
    extra = {Path(k): Path(v) for k, v in ROOT_PAGES.items() if (ROOT / k).is_file()}
    return pages | extra


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and MkDocs make them."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.strip().replace(" ", "-") for title in plain}


def find_problems() -> Iterator[str]:
    """A sentence for each link to a file or heading, and each named file, that is not there."""
    for page in site_pages():
        whole = (ROOT / page).read_text("utf-8")
        for name in FILE.findall(whole if page.name != "CHANGELOG.md" else ""):
            if not INVENTED.search(name) and not (ROOT / name).exists():
                yield f"{page}: {name} is not there"
        text = CODE.sub("", whole)
        for _, target in LINK.findall(text):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (ROOT / page.parent / name).resolve() if name else ROOT / page
            if not path.exists():
                yield f"{page}: {target} is not there"
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                yield f"{page}: {target} has no such heading"


def rewrite_links(text: str, page: Path, pages: dict[Path, Path]) -> str:
    """The page with links that hold in the site; files that are no page lead to the sources."""

    def rewrite(match: re.Match[str]) -> str:
        label, target = match.groups()
        name, mark, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or not name:
            return match[0]
        path = (ROOT / page.parent / name).resolve().relative_to(ROOT)
        here = pages[page].parent
        if path in pages:
            link = Path(*[".."] * len(here.parts), pages[path]).as_posix()
            return f"{label}({link}{mark}{anchor})"
        if path.is_relative_to("docs"):
            link = Path(*[".."] * len(here.parts), path.relative_to("docs")).as_posix()
            return f"{label}({link})"
        return f"{label[1:-1]} (`{path}`)" if label.startswith("[") else label

    return LINK.sub(rewrite, text)


def write_pages(folder: Path) -> None:
    """Write the site's sources into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = site_pages()
    for page, place in pages.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(rewrite_links((ROOT / page).read_text("utf-8"), page, pages), "utf-8")
    documents = ROOT / "docs"
    for path in documents.rglob("*.*"):
        if path.is_file() and path.suffix != ".md":
            target = folder / path.relative_to(documents)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def main(arguments: list[str]) -> int:
    """Entry point."""
    problems = list(find_problems())
    for problem in problems:
        print(problem)
    if not problems and arguments != ["--check"]:
        write_pages(Path(arguments[0]))
    return min(len(problems), 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
