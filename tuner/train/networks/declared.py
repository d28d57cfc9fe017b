"""The parameters of the shared networks, declared without torch."""

from tuner.spec.parameters import Parameter

KINDS = ("ann", "cnn", "cnn_gap", "resnet18", "densenet121", "efficientnet_b0")

PARAMETERS = (
    Parameter("model", "choice", "ann", "the kind of network", choices=KINDS),
    Parameter("depth", "int", 3, "hidden blocks of the ann", low=1, high=50),
    Parameter("width", "int", 64, "units of each hidden layer of the ann", low=1, high=65536),
    Parameter(
        "dropout",
        "float",
        0.3,
        "fraction of units dropped in each block of the ann",
        low=0.0,
        high=0.99,
    ),
    Parameter("batch_norm", "bool", True, "normalise each hidden layer of the ann over the batch"),
    Parameter(
        "pool_kernel", "int", 2, "side of each max pooling of cnn and cnn_gap", low=2, high=4
    ),
    Parameter(
        "weights",
        "text",
        "",
        "file of weights to start from (safetensors, or a torch file of plain tensors), "
        "for resnet18, densenet121 and efficientnet_b0; without one all weights are random",
    ),
)
"""Parameters of the networks in `networks.models`; an objective adds them to its own."""
