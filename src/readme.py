"""The README's table, from recorded runs: `python -m src.readme`."""

import re
from pathlib import Path

from src.table import hardware, markdown, read_csv

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "experiments" / "demo" / "results.csv"
BLOCK = re.compile(r"(<!-- table: .*? -->\n).*?(<!-- end of table -->)", re.DOTALL)


def with_table(readme: str, results: Path = RESULTS) -> str:
    """`readme` with the table of `results` between its marks."""
    rows = read_csv(results)
    table = f"{markdown(rows)}\n\n{hardware(rows)}\n"
    return BLOCK.sub(lambda match: match[1] + table + match[2], readme)


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_table(path.read_text()))
