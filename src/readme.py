"""The tables of the READMEs, from recorded runs: `python -m src.readme`."""

import re
from pathlib import Path

from src.table import hardware, markdown, read_csv

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "demo" / "results.csv"
PAGES = (ROOT / "README.md", ROOT / "experiments" / "demo" / "README.md")
BLOCK = re.compile(r"(<!-- table: .*? -->\n).*?(<!-- end of table -->)", re.DOTALL)


def with_table(page: str) -> str:
    """`page` with the table of the recorded demo between its marks."""
    rows = read_csv(RESULTS)
    table = f"{markdown(rows)}\n\n{hardware(rows)}\n"
    return BLOCK.sub(lambda match: match[1] + table + match[2], page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_table(path.read_text()))
