"""Statistics on arrays: pure functions that know neither studies nor trials.

This is what other rooms may use. A name is loaded when it is first used: SciPy takes long to load.
"""

from typing import TYPE_CHECKING

from tuner.faces import face

if TYPE_CHECKING:
    from tuner.statistics.anova import Panel
    from tuner.statistics.auc import delong, delong_difference, roc, shares_of_area
    from tuner.statistics.bootstrap import mean_difference
    from tuner.statistics.calibration import reliability
    from tuner.statistics.clusters import FEWEST, GIANT, Clusters, too_few
    from tuner.statistics.correlation import rank_correlation
    from tuner.statistics.distributions import students
    from tuner.statistics.fanova import DRAWS, decompose
    from tuner.statistics.means import Mean, mean_over_seeds, welch
    from tuner.statistics.multiple_comparisons import Against, Verdict, against, against_best
    from tuner.statistics.ordering import precedence
    from tuner.statistics.power import Observed, PowerPlan, plan
    from tuner.statistics.proportions import (
        Discordance,
        Effective,
        Right,
        apart,
        effective,
        mcnemar,
        share_of,
        wilson_of,
    )
    from tuner.statistics.ranks import average_ranks
    from tuner.statistics.selection import (
        Candidates,
        SelectionBias,
        selection_bias,
        selection_bias_of_mean,
    )
    from tuner.statistics.sequential import ContenderTest, compare_with_best
    from tuner.statistics.unpaired import Group, Groups
    from tuner.statistics.variance import CONFIDENCE, Interval, around
else:
    __getattr__ = face(
        __name__,
        {
            "anova": "Panel",
            "auc": "delong delong_difference roc shares_of_area",
            "bootstrap": "mean_difference",
            "calibration": "reliability",
            "clusters": "FEWEST GIANT Clusters too_few",
            "correlation": "rank_correlation",
            "distributions": "students",
            "fanova": "DRAWS decompose",
            "means": "Mean mean_over_seeds welch",
            "multiple_comparisons": "Against Verdict against against_best",
            "ordering": "precedence",
            "power": "Observed PowerPlan plan",
            "proportions": "Discordance Effective Right apart effective mcnemar share_of wilson_of",
            "ranks": "average_ranks",
            "selection": "SelectionBias Candidates selection_bias selection_bias_of_mean",
            "sequential": "ContenderTest compare_with_best",
            "unpaired": "Group Groups",
            "variance": "CONFIDENCE Interval around",
        },
    )
