"""The checkpoint tree: training states, each under a hash of everything that determined it.

Only `parts`, `numerics` and `resume` load torch; every process may use the rest.
"""
