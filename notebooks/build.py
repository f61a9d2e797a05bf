"""Notebooks from their sources: `python notebooks/build.py` writes NAME.ipynb of NAME.py, without outputs.

`--render` also runs them, for some minutes, and writes what they show: rendered/NAME.md with its pictures.
"""

import argparse
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

FOLDER = Path(__file__).resolve().parent
RENDERED = FOLDER / "rendered"


def sources() -> list[Path]:
    """The texts that notebooks are made of."""
    return sorted(FOLDER.glob("[0-9]*.py"))


def notebook(source: Path) -> NotebookNode:
    """The notebook of a source, the same every time: cells are named by their place."""
    made = jupytext.read(source)
    made.metadata.pop("jupytext", None)
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number:02d}"
    return made


def text_of(made: NotebookNode) -> str:
    return nbformat.writes(made) + "\n"


def with_parameters(made: NotebookNode, **parameters: object) -> NotebookNode:
    """The notebook with other values in its cell that is tagged `parameters`.

    Raises:
        ValueError: there is no such cell, or it doesn't have one of them.
    """
    cells = [cell for cell in made.cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise ValueError(f"{len(cells)} cells are tagged parameters; one must be")
    for name, value in parameters.items():
        cells[0].source, found = re.subn(rf"(?m)^{name} = .*$", f"{name} = {value!r}", cells[0].source)
        if not found:
            raise ValueError(f"the cell of parameters has no {name}")
    return made


def execute(made: NotebookNode, folder: Path) -> NotebookNode:
    """Runs all cells in order, in a process of its own that is started in `folder`.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises.
    """
    resources = {"metadata": {"path": str(folder)}}
    return NotebookClient(made, timeout=None, kernel_name="python3", resources=resources).execute()


def render(made: NotebookNode, name: str) -> list[Path]:
    """Writes what an executed notebook shows; the files."""
    _join_streams(made)
    text, resources = MarkdownExporter().from_notebook_node(made, {"output_files_dir": name, "unique_key": "picture"})
    RENDERED.mkdir(exist_ok=True)
    for stale in (RENDERED / name).glob("*"):
        stale.unlink()
    files = {RENDERED / f"{name}.md": tidy(text).encode()}
    files |= {RENDERED / picture: content for picture, content in resources["outputs"].items()}
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return list(files)


def _join_streams(made: NotebookNode) -> None:
    """What a cell says on both streams becomes one text, in the order in which it was said."""
    for cell in made.cells:
        joined: list[NotebookNode] = []
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and joined and joined[-1].output_type == "stream":
                joined[-1].text += output.text
            else:
                joined.append(output)
        if "outputs" in cell:
            cell.outputs = joined


def tidy(text: str) -> str:
    """Without blanks at the ends of lines and second blank lines, and with links to pages in place of notebooks.

    Code keeps its blank lines.
    """
    text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text)
    text = re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)
    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else re.sub(r"\n{3,}", "\n\n", part) for part in parts).strip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="such as 01_first_ablation; all by default")
    parser.add_argument("--render", action="store_true")
    options = parser.parse_args()
    for source in sources():
        if options.names and source.stem not in options.names:
            continue
        made = notebook(source)
        source.with_suffix(".ipynb").write_text(text_of(made))
        print(source.with_suffix(".ipynb").relative_to(FOLDER.parent), flush=True)
        if options.render:
            began = time.monotonic()
            files = render(execute(made, FOLDER), source.stem)
            print(f"{files[0].relative_to(FOLDER.parent)}: {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
