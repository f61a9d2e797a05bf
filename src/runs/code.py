"""Which code a result depends on.

The modules that define a run's network, data and training task, and whatever of this project they import: where a
change can change the result. Comments, docstrings and blank lines don't count. What takes a run from its command to its
record (logging, checkpoints, tables) isn't among them; its commit is in the record.
"""

import ast
import functools
import hashlib
import importlib.util
import io
import json
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SRC = Path(__file__).resolve().parents[1]

# What every run uses, whatever its config names.
TASK = ("src.classifier", "src.optim", "src.recipe", "src.models.init", "src.callbacks.epoch_seed")


def code_files(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Hashes of the files behind the targets of `cfg["model"]` and `cfg["data"]`, by their paths in the project.

    A module of somebody else's that isn't an installed package counts too, without what it imports.
    """
    return dict(_files(frozenset(_modules({"model": cfg["model"], "data": cfg["data"]}))))


def code_version(files: Mapping[str, str]) -> str:
    """Ten hexadecimal digits of what `code_files` gave."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:10]


def _modules(value: Any) -> Iterator[str]:
    """Modules of all targets below `value`."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield str(value["_target_"]).rpartition(".")[0]
        for child in value.values():
            yield from _modules(child)
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _modules(child)


@functools.cache
def _files(modules: frozenset[str]) -> tuple[tuple[str, str], ...]:
    waiting, found = sorted({*modules, *TASK}), {}
    while waiting:
        module = waiting.pop()
        path = _path(module)
        if path is None:
            continue
        inside = path.is_relative_to(SRC)
        name = path.relative_to(SRC.parent).as_posix() if inside else f"{module}.py"
        if name in found:
            continue
        text = path.read_text(encoding="utf-8")
        found[name] = hashlib.sha256(essence(text).encode()).hexdigest()[:10]
        if inside:
            waiting += _imports(text)
    return tuple(sorted(found.items()))


def _path(module: str) -> Path | None:
    """The file of a module of this project, or of one that lies about without being installed."""
    if module.partition(".")[0] == "src":
        at = SRC.parent.joinpath(*module.split("."))
        return next((path for path in (at.with_suffix(".py"), at / "__init__.py") if path.is_file()), None)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or "site-packages" in spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _imports(text: str) -> list[str]:
    """Modules of this project that a file imports anywhere; a package's own file only if a name comes from there."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append(inner if _is_module(inner) else node.module)
    return [module for module in found if module.partition(".")[0] == "src"]


def _is_module(name: str) -> bool:
    return name.startswith("src.") and _path(name) is not None


def essence(text: str) -> str:
    """Python source without comments, docstrings, blank lines and blanks at the ends of lines.

    Found by positions, not rewritten from a syntax tree: that would give another text in another Python.
    """
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            lines[line - 1] = lines[line - 1][:column]
    for docstring in _docstrings(ast.parse(text)):
        first, last = docstring.lineno - 1, (docstring.end_lineno or docstring.lineno) - 1
        before = lines[first].encode()[: docstring.col_offset].decode()  # columns count bytes
        after = lines[last].encode()[docstring.end_col_offset :].decode()
        lines[first : last + 1] = [before, *[""] * (last - first - 1), after] if last > first else [before + after]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _docstrings(tree: ast.Module) -> Iterator[ast.Expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first
