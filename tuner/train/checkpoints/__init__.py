"""The checkpoint tree: every state of a training, under the hash of all that shaped it.

Only `parts`, `numerics` and `resume` load torch; the rest is for every process.
"""
