"""Which jobs differ only in numbers, so that their networks may be trained as a pack.

Nothing here loads torch. Only the trainer, which sees the layers, knows what a job's
parameters do to its network: this says which jobs are worth trying.
"""

import json
from collections.abc import Hashable

from tuner.records import Job
from tuner.train.checkpoints.keys import LENGTH_PARAMETERS, RATE_PARAMETERS, shaping

NUMBERS = (
    RATE_PARAMETERS
    | LENGTH_PARAMETERS
    | {"augment", "class_weights", "dropout", "focal_gamma", "label_smoothing", "loss"}
    | {"momentum", "nesterov", "optimizer", "weight_decay"}
)
"""Parameters that do not change the shape of any layer."""


def kind(job: Job) -> Hashable:
    """Return a key that is equal for jobs that may be trained as a pack."""
    whole = shaping(job.parameters)
    # bce is the only loss with a different number of outputs.
    rest = {name: value for name, value in whole.items() if name not in NUMBERS}
    rest["loss"] = whole["loss"] == "bce"
    return job.objective, json.dumps([rest, dict(job.data)], sort_keys=True)
