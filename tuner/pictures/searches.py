"""A picture of two searches: the best value so far by epochs trained, with a band over runs."""

import numpy as np

from tuner.answers import words
from tuner.answers.searches import Searches, SearchRuns
from tuner.pictures import canvas
from tuner.pictures.canvas import Picture
from tuner.pictures.subject import named, sentence, shortened
from tuner.statistics import Mean

POINTS = 400
"""Budgets at which a mean is drawn: more than a page can show."""


def draw_searches(compared: Searches) -> Picture:
    """Draw both searches: single runs thin, their mean thick, and its interval as a band."""
    with canvas.sheet(height=3.4) as sheet:
        (axis,) = sheet.axes
        for place, search in enumerate(compared.both):
            shade = canvas.colour(place)
            for course in search.courses if len(search.courses) > 1 else ():
                epochs = np.append(course.epochs, course.total)
                best = np.append(course.best, course.best[-1:])
                axis.step(epochs[: len(best)], best, where="post", color=shade, linewidth=0.6,
                          alpha=0.4)  # fmt: skip
            budgets, means = _means(search)
            values = [mean.value for mean in means]
            runs = words.count(len(search.courses), "run")
            axis.step(budgets, values, where="post", color=shade, linewidth=2.0,
                      linestyle=canvas.dash(place * len(canvas.COLOURS)),
                      label=f"{shortened(search.name)} ({runs})")  # fmt: skip
            low = [mean.value if mean.low is None else mean.low for mean in means]
            high = [mean.value if mean.high is None else mean.high for mean in means]
            axis.fill_between(budgets, low, high, step="post", color=shade, alpha=0.15,
                              linewidth=0)  # fmt: skip
        axis.set_xlim(left=0)
        axis.set_xlabel("epochs spent")
        axis.set_ylabel(f"best {named(compared.metric)} so far")
        sheet.explain_labelled(axis)
    return Picture(sheet, compared.sentences[0].rstrip("."), _note(compared))


def _means(search: SearchRuns) -> tuple[list[int], list[Mean]]:
    budgets = sorted({round(budget) for budget in np.linspace(1, search.total, POINTS)})
    means = [(budget, search.at(budget)) for budget in budgets]
    known = [(budget, mean) for budget, mean in means if mean is not None]
    return [budget for budget, _ in known], [mean for _, mean in known]


def _note(compared: Searches) -> str:
    several = any(len(search.courses) > 1 for search in compared.both)
    return sentence(
        [
            "The best complete trial at the moment when it completed; a shared epoch counts once",
            "Thin lines are single runs, bands 95% intervals of their mean" if several else "",
            "" if compared.same_images else "Validated on different images: two scales",
        ]
    )
