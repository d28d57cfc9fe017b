"""my_objective: its images, its networks, and what a study may set.

Every command reads this file, so it must not import torch. data.py loads the
images, and models.py builds the networks. Losses, optimizers, schedules, the
usual metrics and checkpoints come with tuner.
"""

from tuner.spec.parameters import Parameter
from tuner.train.networks.declared import PARAMETERS
from tuner.train.objective import Objective
from tuner.train.sources.declared import KEYS

OBJECTIVE = Objective(
    # What a study may vary or fix, in addition to the parameters that come with tuner.
    parameters=[
        # model, depth, width, dropout, …: the networks that come with tuner.
        *PARAMETERS,
        # Your own parameter; models.py gets it as parameters["blur"]:
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
            "height and width in pixels to which images are resized",
            low=8,
            high=1024,
        ),
    ],
    # Your own metrics, in addition to accuracy, loss and AUC. A study can be ranked by one:
    # metric = "val_dice". Import Metric from tuner.records, and write the function in metrics.py:
    #     def dice(labels, probabilities):
    #         found = probabilities[:, 1]
    #         return 2 * found[labels == 1].sum() / (found.sum() + (labels == 1).sum())
    # metrics=[Metric("dice", "higher", "Soft Dice coefficient of class 1.")],
)
