"""What do pictures cost while training? `PYTHONPATH=. python experiments/where_it_looks/cost.py` writes cost.csv and
its line of the page; `--page` only the line, from cost.csv.

The baseline is trained for some epochs with a picture after each, logged to W&B too (offline). Both are counted in
seconds of the process's CPU, one thread, so that other programs on the machine don't count.
"""

import argparse
import csv
import logging
import re
import statistics
import tempfile
import time
from pathlib import Path

FOLDER = Path(__file__).parent
MARKS = re.compile(r"(<!-- cost: .*? -->\n).*?(<!-- end of cost -->)", re.DOTALL)
EPOCHS = 4
COLUMNS = ("epoch", "seconds", "picture_seconds", "hardware")


def measure() -> list[dict[str, object]]:
    """A row an epoch: CPU seconds of all of it, and of its picture."""
    import torch

    from src.callbacks.efficiency import Efficiency
    from src.callbacks.points_pictures import PointsPictures
    from src.config import load_config
    from src.runs.provenance import hardware
    from src.training import train

    torch.set_num_threads(1)
    epochs: list[float] = []
    pictures: list[float] = []
    began = [0.0]
    draw, start = PointsPictures.on_validation_batch_end, Efficiency.on_train_epoch_start

    def timed(*args: object, **kwargs: object) -> None:
        since = time.process_time()
        draw(*args, **kwargs)  # type: ignore[arg-type]
        if args[5] == 0:  # the batch that is drawn
            pictures.append(time.process_time() - since)

    def started(*args: object) -> None:
        if began[0]:
            epochs.append(time.process_time() - began[0])
        began[0] = time.process_time()
        start(*args)  # type: ignore[arg-type]

    PointsPictures.on_validation_batch_end, Efficiency.on_train_epoch_start = timed, started  # type: ignore[assignment]
    with tempfile.TemporaryDirectory() as runs:
        words = (
            f"recipe.epochs={EPOCHS + 1}",
            "watch.points=1",
            f"runs={runs}",
            "logger.mode=offline",
            "progress=lines",
        )
        train(load_config(*words))
    machine = f"{hardware()['cpu']}, 1 thread, torch {torch.__version__.partition('+')[0]}"
    return [
        {"epoch": number, "seconds": f"{epoch:.3f}", "picture_seconds": f"{picture:.4f}", "hardware": machine}
        for number, (epoch, picture) in enumerate(zip(epochs, pictures, strict=False), start=1)
    ]


def line() -> str:
    """What cost.csv says."""
    with (FOLDER / "cost.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    shares = [100 * float(row["picture_seconds"]) / float(row["seconds"]) for row in rows]
    seconds = [float(row["picture_seconds"]) for row in rows]
    spread = f"{min(shares):.2f} to {max(shares):.2f}; median of {len(rows)} epochs"
    return (
        f"A picture takes {statistics.median(shares):.2f} % of an epoch's CPU time ({spread}), "
        f"{1000 * statistics.median(seconds):.0f} ms: micro's baseline on digits, with a picture after every epoch, "
        f"on {rows[0]['hardware']}.\n"
    )


def renewed(text: str) -> str:
    return MARKS.sub(lambda match: match[1] + line() + match[2], text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true")
    if not parser.parse_args().page:
        logging.basicConfig(level=logging.WARNING)
        rows = measure()
        with (FOLDER / "cost.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    page = FOLDER / "README.md"
    page.write_text(renewed(page.read_text()))
    print(line(), end="")


if __name__ == "__main__":
    main()
