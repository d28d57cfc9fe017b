"""Training: one job as a function of (objective, data, parameters, seed), epoch by epoch.

A supervisor may import what loads no torch: `objective`, `recipe`, `schedules` and
`checkpoints`, except its `parts`, `numerics`, `resume` and `saver`.
"""
