"""See where a network looks: its points, its keys, what a query is made of, and how far it sees.

python -m src.visualize run=runs/default/baseline/seed0-... images=0,1,2            # a run, test images of its data
python -m src.visualize weights=dat_tiny.safetensors image=photo.jpg query=120,80   # a file, your picture or a folder
python -m src.visualize compare run=A run=B run=C image=photo.jpg query=120,80      # networks side by side
python -m src.visualize fields run=A run=B images=0:64                              # effective receptive fields

Every other word is an override of conf/train.yaml, as for src.train: model=dat_tiny weights=none looks at an untrained
network. What is written: for each block its points, its keys and the queries, as PNG and SVG, and a page of all blocks.
"""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from src.commands import command

log = logging.getLogger(__name__)

KEYS = ("run", "weights", "image", "images", "query", "blocks", "out")
FIRST, MANY = "0,1,2", "0:32"  # test images to draw and to average over, if nothing is said


@command(interrupted="what is written stays, and the same command begins anew")
def main(arguments: Sequence[str] | None = None) -> None:
    """Draws or measures what is asked for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(
        prog="python -m src.visualize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help=f"{', '.join(KEYS)}, and any key of conf/")
    words = parser.parse_args(arguments).words
    act: Callable[[Mapping[str, list[str]], list[str]], None] = draw
    if words and words[0] in ("compare", "fields"):
        act = {"compare": compare, "fields": fields}[words[0]]
        words = words[1:]
    act(*_options(words))


def draw(said: Mapping[str, list[str]], overrides: list[str]) -> None:
    """Figures and a page for each image."""
    from src.visualization import figures
    from src.visualization.page.render import write_page
    from src.visualization.view import view

    out, wanted, queries = Path(_last(said, "out", "looks")), _last(said, "blocks", "deformable"), _queries(said)
    pictures = _pictures(said, FIRST)
    (network,) = _networks(said, overrides, most=1)
    subjects, count = _subjects(pictures, network.data), len(pictures)
    for number, subject in enumerate(subjects, 1):
        seen = view(network.net, subject, title=network.title)
        names = seen.chosen(wanted)
        for xy in queries:
            seen.blocks[names[0]].query_at(xy)  # refused before anything is drawn
        folder = out / _file_name(subject.name)
        for name in names:
            block = seen.blocks[name]
            _save(figures.offsets(block), folder, f"{name}-points")
            _save(figures.keys(block), folder, f"{name}-keys")
            for xy in queries:
                _save(figures.query(seen, name, xy), folder, f"{name}-query-{xy[0]:g}-{xy[1]:g}")
        page = write_page(seen, names, folder / "index.html", first=queries[0] if queries else None)
        log.info("%d/%d  %s: %s in %s", number, count, subject.name, ", ".join(names), page)


def compare(said: Mapping[str, list[str]], overrides: list[str]) -> None:
    """One query in several networks, side by side: in each the last block of the block's stage, if it isn't named."""
    from src.visualization import figures
    from src.visualization.view import view

    out, queries, pictures = Path(_last(said, "out", "looks")), _queries(said), _pictures(said, FIRST)
    networks = _networks(said, overrides)
    if len(networks) < 2:
        raise ValueError("compare needs several networks: run=A run=B ..., or experiment=A,B,... with weights=none")
    subjects, count = _subjects(pictures, networks[0].data), len(pictures)
    sides = {network.data.image_size for network in networks}
    if len(sides) > 1:
        raise ValueError(f"compare needs networks for images of one size; these are for {', '.join(map(str, sides))}")
    for number, subject in enumerate(subjects, 1):
        views = [view(network.net, subject, title=network.title) for network in networks]
        blocks = [_block_to_compare(one, _last(said, "blocks", "three")) for one in views]
        wide, high = subject.picture.size
        for xy in queries or [(wide / 2, high / 2)]:
            name = f"compared-{xy[0]:g}-{xy[1]:g}"
            _save(figures.side_by_side(views, blocks, xy), out / _file_name(subject.name), name)
        log.info("%d/%d  %s in %s", number, count, subject.name, out / _file_name(subject.name))


def fields(said: Mapping[str, list[str]], overrides: list[str]) -> None:
    """Effective receptive fields of every stage: a figure and a table of radii."""
    from src.visualization.receptive import figure, measure, write_rows

    out, pictures = Path(_last(said, "out", "looks")), _pictures(said, MANY)
    found = []
    for network in _networks(said, overrides):
        log.info("%s: %d images", network.title, len(pictures))
        images = [subject.image for subject in _subjects(pictures, network.data)]
        found.append(measure(network.net, images, title=network.title))
    out.mkdir(parents=True, exist_ok=True)
    write_rows(found, out / "receptive_fields.csv")
    _save(figure(found), out, "receptive_fields")
    for field in (field for network_fields in found for field in network_fields):
        log.info("%s", field)
    log.info("%s, and .png, .svg beside it", out / "receptive_fields.csv")


# --------------------------------------------------------------------------------------- what is said


def _options(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Words `key=value` of our own, by key, and the others, which are overrides of conf/train.yaml.

    Raises:
        ValueError: a word is neither.
    """
    mine: dict[str, list[str]] = {key: [] for key in KEYS}
    others: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"{word!r} isn't of the form key=value; the keys are {', '.join(KEYS)}, and conf/'s")
        if key in mine:
            mine[key].append(value)
        else:
            others.append(word)
    return mine, others


def _networks(said: Mapping[str, list[str]], overrides: list[str], most: int | None = None) -> list[Any]:
    from src.visualization.networks import of_run, of_weights

    runs, weights = said["run"], said["weights"]
    if bool(runs) == bool(weights):
        what = "both are there" if runs else "neither is"
        raise ValueError(f"either run=FOLDER or weights=FILE must be given, and {what}; weights=none is untrained")
    if runs:
        networks = [partial(of_run, Path(run).expanduser(), overrides) for run in runs]
    else:
        variants = list(_variants(overrides))
        networks = [partial(of_weights, file, variant) for file in weights for variant in variants]
    if most is not None and len(networks) > most:
        raise ValueError(f"{len(networks)} networks are named; this draws one, and compare several side by side")
    return [make() for make in networks]


def _variants(overrides: list[str]) -> Iterator[list[str]]:
    """Overrides with one of the experiments that are separated by commas."""
    several = [word for word in overrides if word.startswith("experiment=") and "," in word]
    others = [word for word in overrides if word not in several]
    names = several[0].partition("=")[2].split(",") if several else []
    yield from ([*others, f"experiment={name}"] for name in names)
    if not several:
        yield others


def _pictures(said: Mapping[str, list[str]], first: str) -> list[Path] | list[int]:
    """Files, or numbers of test images.

    Raises:
        DataError, ValueError: there is no such file, one can't be read, or it isn't clear which are meant.
    """
    from src.visualization.subjects import picture_files, refuse_unreadable

    if said["image"] and said["images"]:
        raise ValueError("image= names files, images= numbers of test images; give one of them")
    if said["image"]:
        files = [file for value in said["image"] for file in picture_files(Path(value).expanduser())]
        refuse_unreadable(files)
        return files
    return _numbers(_last(said, "images", first))


def _subjects(pictures: list[Path] | list[int], data: Any) -> Iterator[Any]:
    from src.visualization.subjects import from_files, from_tests

    files = [picture for picture in pictures if isinstance(picture, Path)]
    return from_files(files, data) if files else from_tests(data, [n for n in pictures if isinstance(n, int)])


def _numbers(text: str) -> list[int]:
    """`0,1,5` or `0:64`.

    Raises:
        ValueError: it is neither.
    """
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        found = list(range(int(match[1]), int(match[2])))
    elif re.fullmatch(r"\d+(,\d+)*", text):
        found = [int(number) for number in text.split(",")]
    else:
        found = []
    if not found:
        raise ValueError(f"images={text!r} are no numbers of test images; write 0,1,5 or 0:64")
    return found


def _queries(said: Mapping[str, list[str]]) -> list[tuple[float, float]]:
    found = []
    for text in said["query"]:
        match = re.fullmatch(r"(\d+(?:\.\d+)?),(\d+(?:\.\d+)?)", text)
        if not match:
            raise ValueError(f"query={text!r} is no place; write x,y in pixels of the picture, such as query=120,80")
        found.append((float(match[1]), float(match[2])))
    return found


def _block_to_compare(seen: Any, wanted: str) -> str:
    stage = [name for name in seen.blocks if name.partition(".")[0] == wanted]
    return stage[-1] if stage else seen.chosen(wanted)[-1]


def _last(said: Mapping[str, list[str]], key: str, usual: str) -> str:
    return said[key][-1] if said[key] else usual


def _file_name(name: str) -> str:
    """Names of pictures are users'; what is no letter, digit, dot or dash is a line in ours."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "picture"


def _save(figure: Any, folder: Path, name: str) -> None:
    from src.reports.figures.save import save

    save(figure, folder, name)


if __name__ == "__main__":
    sys.exit(main())
