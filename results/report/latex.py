"""A report as a LaTeX document for XeLaTeX: booktabs tables, Hangul by kotex."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from results.report.html import FOLD
from results.report.pictures import read_width, use_image_syntax
from results.text.table import text_width

if TYPE_CHECKING:
    from markdown_it.token import Token

PREAMBLE: Final = r"""% Compile with: xelatex
\documentclass[a4paper,10pt]{article}
\usepackage{fontspec}
\usepackage[margin=18mm]{geometry}
\usepackage{array,booktabs,longtable,graphicx,xcolor,fancyvrb,pdflscape}
"""
HANGUL: Final = r"""\usepackage{kotex}
\IfFontExistsTF{Noto Sans CJK KR}{\setmainhangulfont{Noto Sans CJK KR}
  \setsanshangulfont{Noto Sans CJK KR}\setmonohangulfont{Noto Sans CJK KR}[Scale=1.047]}{}
"""
"""A Hangul of the scaled Noto is as wide as two letters of the scaled DejaVu Sans Mono."""
SETUP: Final = r"""\IfFontExistsTF{DejaVu Sans}{\setmainfont{DejaVu Sans}[Scale=0.86]
  \setmonofont{DejaVu Sans Mono}[Scale=0.8]}{}
\setlength{\parindent}{0pt}\setlength{\parskip}{4pt}\setlength{\tabcolsep}{3pt}
\setcounter{secnumdepth}{0}\sloppy
\begin{document}
"""
PIXELS_A_LETTER: Final = 7
SECTIONS: Final = {"h1": "section*", "h2": "section", "h3": "subsection", "h4": "subsubsection"}
ESCAPES: Final = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_\allowbreak{}", "%": r"\%",
    "&": r"\&", "#": r"\#", "$": r"\$", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "-": r"-\allowbreak{}", "/": r"/\allowbreak{}",
}  # fmt: skip
PLAIN: Final = {
    "paragraph_close": "\n",
    "bullet_list_open": "\\begin{itemize}\\setlength{\\itemsep}{0pt}\n",
    "ordered_list_open": "\\begin{enumerate}\\setlength{\\itemsep}{0pt}\n",
    "list_item_open": "\\item{} ",
    "bullet_list_close": "\\end{itemize}\n",
    "ordered_list_close": "\\end{enumerate}\n",
    "hr": "\\par\\hrulefill\\par\n",
}
BOXES: Final = str.maketrans("─│┌┐└┘├┤┬┴┼▶◀▼▲", "-|+++++++++><v^")
SIZES: Final = (("\\footnotesize", 112), ("\\scriptsize", 138), ("\\tiny", 10**9))
"""Size of letters, and how many of them a line of a table holds."""
UPRIGHT: Final = 200
"""Letters of a line that an upright page holds in tiny letters; wider tables turn the page."""
LANDSCAPE: Final = 1.5
"""Letters of a line of a page on its side, to those of an upright one."""
LONGEST: Final = (60, 40, 28)
"""Letters of a line that a column gets at most; the first with which a table needs no tiny ones."""
HEADING: Final = 24
"""Letters of a heading that count for the width of its column; longer ones wrap."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_HANGUL: Final = re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")


def render_latex(markdown: str) -> str:
    """The report as a document of its own; figures are those beside it, as PNG.

    Raises:
        ModuleNotFoundError: markdown-it-py is not installed.
    """
    from markdown_it import MarkdownIt

    tokens = (
        MarkdownIt("commonmark", {"html": False}).enable("table").parse(use_image_syntax(markdown))
    )
    hangul = HANGUL if _HANGUL.search(markdown) else ""
    body = "".join(_render_blocks(tokens))
    return f"{PREAMBLE}{hangul}{SETUP}{body}\\end{{document}}\n"


def escape_latex(text: str) -> str:
    """Plain text for LaTeX; names and paths may break after `_`, `-` and `/`."""
    return "".join(ESCAPES.get(letter, letter) for letter in _CONTROL.sub("", text))


def _render_blocks(tokens: Sequence[Token]) -> Iterator[str]:
    at = 0
    while at < len(tokens):
        token = tokens[at]
        match token.type:
            case "heading_open":
                command = SECTIONS.get(token.tag, "paragraph")
                yield f"\n\\{command}{{{_render_inline(tokens[at + 1])}}}\n"
                at += 2
            case "table_open":
                end = next(i for i in range(at, len(tokens)) if tokens[i].type == "table_close")
                yield _render_table(tokens[at:end])
                at = end
            case "inline" if match := FOLD.fullmatch(token.content):
                title = escape_latex(match["title"] or "")
                yield f"\n\\section*{{{title}}}\n" if title else ""
            case "inline":
                yield _render_inline(token) + "\n"
            case "fence" | "code_block":
                yield _render_code(token.content)
            case kind:
                yield PLAIN.get(kind, "")
        at += 1


def _render_code(text: str) -> str:
    """A verbatim block; kotex takes the lines of boxes for Hangul, so they become ASCII."""
    text = text.translate(BOXES)
    spacing = "\\disablehangulspacingandlinebreak" if _HANGUL.search(text) else ""
    content = _CONTROL.sub("", text).replace("\\end{Verbatim}", "\\end {Verbatim}")
    options = "fontsize=\\scriptsize"
    return f"{{{spacing}\n\\begin{{Verbatim}}[{options}]\n{content}\\end{{Verbatim}}\n}}\n"


def _render_inline(token: Token) -> str:
    return "".join(map(_render_span, token.children or ()))


def _render_span(span: Token) -> str:
    match span.type:
        case "text" | "html_inline":
            return escape_latex(span.content)
        case "code_inline":
            return f"\\texttt{{{escape_latex(span.content)}}}"
        case "strong_open":
            return "\\textbf{"
        case "em_open":
            return "\\emph{"
        case "strong_close" | "em_close":
            return "}"
        case "image":
            return _render_image(span)
        case "softbreak" | "hardbreak":
            return "\n"
    return ""


def _measure_cell(cell: Token) -> int:
    """Letters that the widest cell of a column counts as; of a picture its width in them."""
    widths = [read_width(str(s.attrGet("title") or "")) for s in cell.children or ()]
    pictures = [width // PIXELS_A_LETTER for width in widths if width]
    return max(pictures, default=text_width(cell.content))


def _render_image(span: Token) -> str:
    """A figure as wide as the text, a picture at 96 px an inch; WebP, which TeX lacks, by name."""
    path = re.sub(r"\.svg$", ".png", str(span.attrGet("src") or ""))
    name = re.sub(r"[\\{}^~%#&$]", "", path)
    if name.endswith(".webp"):
        return f"\\texttt{{{escape_latex(name)}}}"
    width = read_width(str(span.attrGet("title") or ""))
    if not width:
        return f"\\includegraphics[width=\\linewidth]{{{name}}}"
    inches = f"{width / 96:.2f}in"
    size = f"\\ifdim\\linewidth<{inches} \\linewidth\\else {inches}\\fi"
    picture = f"\\includegraphics[width={size}]{{{name}}}"
    return f"\\raisebox{{\\dimexpr 1.4ex-\\height}}{{{picture}}}"  # its top at the row's


def _fit_columns(lengths: Sequence[int]) -> tuple[str, list[int], bool]:
    """Size of letters, the letters that each column gets, and whether an upright page holds it.

    Long texts wrap first; then the page is turned on its side.
    """
    for longest in LONGEST:
        widths = [min(max(length, 6), longest) for length in lengths]
        letters = sum(widths) + 2 * len(widths)
        if letters <= SIZES[-2][1]:
            break
    is_upright = letters <= UPRIGHT
    letters = letters if is_upright else int(letters / LANDSCAPE)
    return next(size for size, most in SIZES if letters <= most), widths, is_upright


def _render_table(tokens: Sequence[Token]) -> str:
    """A longtable of booktabs: long texts wrap, numbers stand to the right."""
    rows: list[list[str]] = []
    lengths: list[int] = []
    right: list[bool] = []
    for at, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("th_open", "td_open"):
            column, cell = len(rows[-1]), tokens[at + 1]
            rows[-1].append(_render_inline(cell))
            if token.type == "th_open":
                lengths.append(0)
                right.append("right" in str(token.attrGet("style") or ""))
            length = _measure_cell(cell)
            is_heading = token.type == "th_open"
            lengths[column] = max(lengths[column], min(length, HEADING) if is_heading else length)
    size, lengths, is_upright = _fit_columns(lengths)
    total = max(sum(lengths), 90)
    shares = (length / total for length in lengths)
    widths = [f"\\dimexpr{share:.3f}\\linewidth-2\\tabcolsep\\relax" for share in shares]
    sides = [r"\raggedleft" if is_right else r"\raggedright" for is_right in right]
    columns = "".join(
        f">{{{side}\\arraybackslash}}p{{{width}}}"
        for side, width in zip(sides, widths, strict=True)
    )
    head, *body = ["{}" + " & ".join(row) + r" \\" for row in rows]  # a [ would be an option
    lines = "\n".join(body)
    before, after = ("", "") if is_upright else ("\\begin{landscape}\n", "\\end{landscape}\n")
    return (
        f"{before}{{{size}\n\\begin{{longtable}}{{@{{}}{columns}@{{}}}}\n\\toprule\n{head}\n\\midrule\n"
        f"\\endhead\n{lines}\n\\bottomrule\n\\end{{longtable}}}}\n{after}"
    )
