"""Tables of words and numbers as Markdown and LaTeX, and how numbers are written."""

from collections.abc import Sequence
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"

# TeX's own characters, and what stands for those that pdflatex doesn't know.
TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    MINUS: "$-$",
    "≤": r"$\le$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


@dataclass(frozen=True)
class Table:
    """Cells as they are to be read; the first column is of names, the others of numbers or words."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        return "\n".join(f"| {' | '.join(map(_markdown, line))} |" for line in lines)

    def latex(self, caption: str, label: str) -> str:
        """A table environment with booktabs' rules."""
        columns = "l" + "r" * (len(self.header) - 1)
        lines = [" & ".join(map(tex, row)) + r" \\" for row in self.rows]
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{tex(caption)}}}",
                rf"\label{{{label}}}",
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                " & ".join(map(tex, self.header)) + r" \\",
                r"\midrule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )


def _markdown(text: str) -> str:
    """Names and messages come from users: they shall neither end a cell nor begin a tag."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in " ".join(text.split()))


def signed(points: float) -> str:
    """A difference in percentage points, with its sign; nothing is neither."""
    rounded = round(points, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", MINUS) if rounded else "0.0"


def interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{signed(bounds[0])} to {signed(bounds[1])}"


def probability(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def count(number: float) -> str:
    """28.32 M, 7.7 M, 577 k."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            value = number / size
            return f"{value:.2f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{number:.0f}"


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
