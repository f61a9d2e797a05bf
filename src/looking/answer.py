"""What a study's rows say, in sentences made by the rule of `findings` alone, so that nobody's wishes are in them."""

from collections.abc import Iterator, Mapping

import numpy as np

from src.looking.findings import Finding, Word, findings, judge_all, observation
from src.looking.rows import TRAINED, Kept
from src.looking.text import interval, seeds, signed
from src.reports.text import listed


def answer(kept: Kept) -> str:
    """Whether the papers' observation holds, block by block."""
    blocks: dict[str, list[str]] = {}
    for block in kept.blocks:
        blocks.setdefault(observation(judge_all(_found(kept, kept.subject, block))), []).append(block)
    said = [f"in {listed(names)} {what}" for what, names in blocks.items()]
    return f"The papers' observation, with {seeds(len(kept.about['seeds'][kept.subject]))}: {'; '.join(said)}."


def evidence(kept: Kept) -> list[str]:
    """Some sentences for each block."""
    return ["".join(_block(kept, block)) for block in kept.blocks]


def _block(kept: Kept, block: str) -> Iterator[str]:
    of = _found(kept, kept.subject, block)
    mean = {name: float(values.mean()) for name, values in kept.per_seed(kept.subject, TRAINED, block).items()}
    words = judge_all(of)
    yield f"**{block}**: "
    if "farther" in of:
        yield f"points that start off the object move {mean['length_off']:.1f} px, "
        yield f"{mean['length_off'] / mean['length_on']:.2f} times as far as those on it "
        yield f"({_said('farther', words)}; {_said('still', words)}). "
    above, anyhow = "points above reference", 100 * (mean["points_other_image"] - mean["reference"])
    yield f"{100 * mean['points']:.1f} % of the points are on the object, beside the reference grid "
    yield f"{signed(of[above].mean, above)}: {signed(anyhow, above)} whatever the image, "
    yield f"{_against(of, 'points above other images')} by following it ({_said('gather', words)}). "
    yield f"{100 * mean['mass']:.1f} % of the attention is on the object, beside equal weights "
    yield f"{_against(of, 'mass above equal weights')}, beside other images' "
    yield f"{_against(of, 'mass above other images')} ({_said('attend', words)})"
    if kept.fixed and kept.fixed != kept.subject:
        still = _found(kept, kept.fixed, block)
        both = [signed(still[name].mean, name) for name in ("mass above equal weights", "mass above other images")]
        yield f"; where points can't move, {listed(both)} ({seeds(still[above].seeds)})"
    yield "."


def _said(claim: str, words: Mapping[str, Word]) -> str:
    return f"*{claim}* is {words[claim]}" if words[claim] != "holds" else f"*{claim}* holds"


def _found(kept: Kept, variant: str, block: str) -> dict[str, Finding]:
    return findings(kept.images[variant, TRAINED, block])


def _against(found: Mapping[str, Finding], name: str) -> str:
    """With the interval over seeds and images."""
    return f"{signed(found[name].mean, name)} ({interval(found[name].over_both, name)})"


def limits(kept: Kept) -> list[str]:
    about, trained = kept.about, kept.about["test/acc1"]
    accuracy = listed([f"{name} {100 * np.mean(values):.1f} %" for name, values in trained.items()])
    found = [
        f"It is about {about['model']} at {about['image_size']} pixels on {about['images']['data']} after "
        f"{about['epochs']} epochs ({accuracy} of test images right): other networks, data and schedules may look "
        f"elsewhere.",
        "A key reads features that have seen more of the image than the pixel it lies in, so that a point beside an "
        "object can read it; where keys lie, and not what they see, is counted.",
        "Attention that goes to an object needn't be what an answer depends on.",
    ]
    partly = [block for block in kept.blocks if _partly(kept, block)]
    if partly:
        having = listed([f"{_found(kept, kept.subject, block)['farther'].images} in {block}" for block in partly])
        found.append(
            f"Distances on and off the object are compared on images that have reference points on both: of "
            f"{about['images']['count']}, {having}."
        )
    return found


def _partly(kept: Kept, block: str) -> bool:
    found = _found(kept, kept.subject, block)
    return "farther" in found and found["farther"].images < kept.about["images"]["count"]


def recorded(kept: Kept) -> str:
    """What was measured, and where it was trained."""
    images, machines = kept.about["images"], kept.about["trained on"]
    runs = listed([f"{seeds(len(of))} of {name}" for name, of in kept.about["seeds"].items()])
    of = f"{images['split']} images" if images["split"] else "images"
    on = "; ".join(f"{m['cpu']}, {m['threads']} thread(s), torch {m['torch']}" for m in machines)
    return f"Recorded: {runs}, on the first {images['count']} {of} of {images['data']}; trained on {on}."
