"""A stored study: its trials, their predictions, and samples for the statistics.

Other rooms use these names. Each is loaded when it is first used: a command that prints
rows does not load the statistics of a race.
"""

from typing import TYPE_CHECKING

from tuner.faces import face

if TYPE_CHECKING:
    from tuner.results.conditions import Condition, read_condition, read_query
    from tuner.results.contenders import Evidence, contender_names, decide, judge_look, read_race
    from tuner.results.designs import (
        COMBINATIONS_MOST,
        SETTINGS_FEWEST,
        Design,
        Level,
        Standing,
        combination_name,
        common_levels,
        comparable,
        design,
        elsewhere,
        standing_of,
    )
    from tuner.results.epochs import (
        COURSES_MOST,
        Curve,
        RateCourse,
        Stray,
        curves,
        rates,
        setting_curves,
        strays,
    )
    from tuner.results.levels import SHOWN, VIEWS, WHOLE, Factor, factors, shown, view
    from tuner.results.measures import MEASURES, Measure, measures_of, nll, right
    from tuner.results.paging import Page, chosen, page
    from tuner.results.predictions import Predicted, predicted
    from tuner.results.provenance import (
        DataSet,
        Reuse,
        TrialOrigin,
        endings,
        origin,
        reuse,
        trial_origin,
    )
    from tuner.results.results import Results, by_number, once
    from tuner.results.rows import (
        EPOCH_COLUMNS,
        FIGURES,
        FURTHER,
        LEADING,
        TRAILING,
        Place,
        TrialRow,
        check_columns,
        epoch_columns,
        epoch_rows,
        place,
        ranked,
        trial_columns,
        trial_rows,
    )
    from tuner.results.samples import Sample, Source, by_trial, column_of, has_figure, sample
else:
    __getattr__ = face(
        __name__,
        {
            "conditions": "Condition read_condition read_query",
            "designs": "COMBINATIONS_MOST SETTINGS_FEWEST Design Level Standing combination_name "
            "common_levels comparable design elsewhere standing_of",
            "epochs": "COURSES_MOST Curve RateCourse Stray curves rates setting_curves strays",
            "levels": "SHOWN VIEWS WHOLE Factor factors shown view",
            "measures": "MEASURES Measure measures_of nll right",
            "paging": "Page chosen page",
            "predictions": "Predicted predicted",
            "provenance": "DataSet Reuse TrialOrigin endings origin reuse trial_origin",
            "contenders": "Evidence contender_names decide judge_look read_race",
            "results": "Results by_number once",
            "rows": "EPOCH_COLUMNS FIGURES FURTHER LEADING TRAILING Place TrialRow "
            "check_columns epoch_columns epoch_rows place ranked trial_columns trial_rows",
            "samples": "Sample Source by_trial column_of has_figure sample",
        },
    )
