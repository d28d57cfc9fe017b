"""Which jobs may differ in numbers alone, so that their networks can be trained as a pack.

Nothing here loads torch. What a job's parameters do to its network only the
trainer knows, which looks at the layers: this says which are worth trying.
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
"""Parameters that change no layer's shape."""


def kind(job: Job) -> Hashable:
    """Return what jobs have in common that may be trained as a pack."""
    whole = shaping(job.parameters)
    # Of all losses this one alone has another number of outputs.
    rest = {name: value for name, value in whole.items() if name not in NUMBERS}
    rest["loss"] = whole["loss"] == "bce"
    return job.objective, json.dumps([rest, dict(job.data)], sort_keys=True)
