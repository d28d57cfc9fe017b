"""A study as one document: question, answer, evidence, and how it came about."""

MARK = '<meta name="generator" content="tuner '
"""In the page of every report: by this an earlier one is recognised."""
