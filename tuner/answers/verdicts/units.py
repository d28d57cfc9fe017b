"""What was sampled, in words: images, or patients with their images."""

from collections.abc import Sequence

from tuner.answers.verdicts import wording
from tuner.statistics.clusters import FEWEST, GIANT, Clusters

UNKNOWN = (
    "These labels were stored before patients were kept with them, so this is judged by image: "
    "if patients have several images each, the intervals are too narrow."
)


def too_few(clusters: Sequence[Clusters]) -> bool:
    """Say whether there are too few patients in some split to judge by."""
    return any(one.too_few for one in clusters)


def sampled(images: int, patients: int) -> str:
    """Return what a figure is over: "400 images", or "400 images of 80 patients"."""
    if not patients:
        return wording.count(images, "image")
    return f"{wording.count(images, 'image')} of {wording.count(patients, 'patient')}"


def in_table(images: int, patients: int) -> str:
    """Return the same under a heading "images": "400", or "400 of 80 patients"."""
    if not patients:
        return f"{images:,}"
    return f"{images:,} of {wording.count(patients, 'patient')}"


def unit(patients: int) -> str:
    """Return the word for what was sampled, in the plural."""
    return "patients" if patients else "images"


def remarks(clusters: Sequence[Clusters], *, unknown: bool = False) -> list[str]:
    """Say what limits an answer: too few patients, one that has many images, or none known."""
    said = [UNKNOWN] if unknown else []
    few = min((one.patients for one in clusters), default=FEWEST)
    if few < FEWEST:
        said.append(
            f"{wording.count(few, 'patient')} {'is' if few == 1 else 'are'} too few to judge by, "
            f"no matter how many images they have; collect images of {FEWEST} or more."
        )
    largest = max((one.largest for one in clusters), default=0.0)
    if few >= FEWEST and largest > GIANT:
        said.append(
            f"One patient has {wording.percent(largest, 0)} of the images, which makes the "
            "intervals wide; more images of other patients would narrow them."
        )
    return said
