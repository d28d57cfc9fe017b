"""my_objective: which images are told apart, and what a study may set.

This file is read by every command, so it must not import torch. The images
are loaded in data.py and the networks built in models.py; losses, optimizers,
schedules, the usual figures and checkpoints are the shared trainer's.
"""

from tuner.spec.parameters import Parameter
from tuner.train.networks.declared import PARAMETERS
from tuner.train.objective import Objective
from tuner.train.sources.declared import KEYS

OBJECTIVE = Objective(
    # What a study may vary or fix, beside the shared trainer's own parameters.
    parameters=[
        # model, depth, width, dropout, …: the networks that come with tuner.
        *PARAMETERS,
        # One of your own; models.py finds it as parameters["blur"]:
        # Parameter("blur", "float", 0.0, "blur of the images in pixels", low=0.0, high=5.0),
    ],
    # What a study may set under [data].
    data=[
        # path, val_fraction, folds, split_seed, skip_unreadable: read by the shared sources.
        *KEYS,
        Parameter(
            "image_size",
            "int",
            32,
            "height and width in pixels that images are brought to",
            low=8,
            high=1024,
        ),
    ],
    # Figures of your own, beside accuracy, loss and AUC. A study can be ranked by one:
    # metric = "val_dice". Import Metric from tuner.records, and write the function into metrics.py:
    #     def dice(labels, probabilities):
    #         found = probabilities[:, 1]
    #         return 2 * found[labels == 1].sum() / (found.sum() + (labels == 1).sum())
    # metrics=[Metric("dice", "higher", "Soft Dice coefficient of class 1.")],
)
