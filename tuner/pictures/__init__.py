"""Pictures of a study: drawn by Matplotlib, titled with what is seen."""

MARK = "tuner, by Matplotlib"
"""In every picture's file as its creator: by this an earlier one is recognised."""
