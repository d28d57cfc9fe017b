"""Training: one job as a function of (objective, data, parameters, seed), epoch by epoch.

What a supervisor may import loads no torch: `objective`, `recipe`, `schedules`
and `checkpoints` but for its `parts`, `numerics`, `resume` and `saver`.
"""
