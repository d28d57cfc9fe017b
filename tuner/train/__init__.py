"""Training: the objective contract, prepared data, losses, optimizers, schedules, runs.

Only `tuner.train.objective` is imported by processes that must not load torch.
"""
