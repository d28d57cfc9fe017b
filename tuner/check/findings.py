"""The findings of an examination as sentences."""

from collections.abc import Iterator

from tuner.check.examination import Contents, Examination
from tuner.statistics import FEWEST

UNEVEN = 0.1
"""A class whose share differs by more than this between two splits is reported."""
RARE = 0.2
"""A class is called rare below this fraction of an equal share of the training images."""
SHOWN = 5


def warnings(examination: Examination) -> tuple[str, ...]:
    """Return a sentence for everything worth knowing before training for hours."""
    return (
        *_contradictions(examination),
        *_duplicates(examination),
        *_patients(examination),
        *_few_patients(examination),
        *_balance(examination),
        *(each for split, found in examination.contents.items() for each in _odd(split, found)),
        *_shift(examination),
    )


def _contradictions(examination: Examination) -> Iterator[str]:
    many = len(examination.contradictions)
    if not many:
        return
    exact = sum(contradiction.exact for contradiction in examination.contradictions)
    subject = "1 image has" if many == 1 else f"{many} images have"
    names = [
        " = ".join(f"{split}: {name} ({label})" for split, name, label in contradiction.images)
        for contradiction in examination.contradictions
    ]
    yield (
        f"{subject} more than one label ({exact} exact, {many - exact} near duplicates): at least "
        f"one of them is wrong. {_some(names)}"
    )


def _duplicates(examination: Examination) -> Iterator[str]:
    exact = examination.duplicates.count(exact=True, across=True)
    near = examination.duplicates.count(exact=False, across=True)
    if exact or near:
        parts = [f"{exact} exact"] if exact else []
        parts += [f"{near} near"] if near else []
        names = [
            " = ".join(f"{split}: {image}" for split, image in group.images)
            for group in examination.duplicates.groups
            if group.across
        ]
        yield (
            f"{_images(exact + near, 'has a copy', 'have a copy')} in an earlier split "
            f"({' and '.join(parts)} {'duplicate' if exact + near == 1 else 'duplicates'}): "
            f"results on them do not show how the model does on new images. {_some(names)}"
        )
    exact = examination.duplicates.count(exact=True, across=False)
    near = examination.duplicates.count(exact=False, across=False)
    if exact or near:
        yield (
            f"{_images(exact + near, 'repeats', 'repeat')} another image of the same split "
            f"({exact} exact, {near} near), which gives that image more weight."
        )


def _patients(examination: Examination) -> Iterator[str]:
    if examination.patients:
        count = len(examination.patients)
        names = [f"{patient} ({', '.join(splits)})" for patient, splits in examination.patients]
        subject = "1 patient is" if count == 1 else f"{count} patients are"
        yield (f"{subject} in more than one split: a model may recognise them. {_some(names)}")


def _few_patients(examination: Examination) -> Iterator[str]:
    for split, contents in examination.contents.items():
        if split != "train" and 0 < contents.patients < FEWEST:
            count = "1 patient" if contents.patients == 1 else f"{contents.patients} patients"
            yield (
                f"{split} has images of {count}: too few to judge any setting by. Results are "
                f"judged by patient; {FEWEST} or more are needed."
            )


def _balance(examination: Examination) -> Iterator[str]:
    train = examination.contents["train"]
    alone = {
        split: [n for n, k in contents.classes.items() if k]
        for split, contents in examination.contents.items()
    }
    for split, names in alone.items():
        if len(names) == 1:
            yield (
                f"all {examination.contents[split].images} {split} images are of class {names[0]}: "
                f"{split} accuracy only measures how often that class is predicted, and AUC is "
                f"undefined. Add {split} images of the other "
                f"{'class' if len(train.classes) == 2 else 'classes'}."
            )
    for name, count in train.classes.items():
        share = count / train.images
        if share < RARE / len(train.classes):
            yield (
                f"class {name} is rare: {count} of {train.images} training images. Look at "
                "balanced accuracy and AUC, and try class_weights = 'balanced'."
            )
        for split, other in examination.contents.items():
            if len(alone[split]) == 1:
                continue
            theirs = other.classes[name] / other.images
            if abs(theirs - share) > UNEVEN:
                yield (
                    f"class {name} is {share:.0%} of the training images but {theirs:.0%} of "
                    f"{split}: accuracies of the two are not comparable."
                )


def _odd(split: str, contents: Contents) -> Iterator[str]:
    if contents.constant:
        blank = _images(len(contents.constant), "is blank", "are blank", split)
        yield f"{blank}. {_some(contents.constant)}"
    if contents.clipped:
        clipped = _images(len(contents.clipped), "is", "are", split)
        yield f"{clipped} mostly clipped to black or white. {_some(contents.clipped)}"


def _images(many: int, singular: str, plural: str, split: str = "") -> str:
    """Return a number of images with its verb."""
    kind = f"{split} image" if split else "image"
    return f"1 {kind} {singular}" if many == 1 else f"{many:,} {kind}s {plural}"


def _shift(examination: Examination) -> Iterator[str]:
    for probe in examination.probes:
        if not probe.tells_apart:
            continue
        figures = f"AUC {probe.auc:.2f}, {probe.low:.2f} to {probe.high:.2f}; 0.5 is chance"
        if probe.second == "test":
            yield (
                f"training and test images can be told apart ({figures}): they come from "
                "different distributions. Expect test accuracy below validation accuracy, "
                "no matter how the study is tuned."
            )
        else:
            yield (
                f"training and validation images can be told apart ({figures}): validation "
                "does not represent the training images. Split the data again, by patient if "
                "patients are known."
            )


def _some(names: "list[str] | tuple[str, ...]") -> str:
    more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return "; ".join(names[:SHOWN]) + more + "."
