"""A study as one document: question, answer, evidence, and how it was produced."""

MARK = '<meta name="generator" content="tuner '
"""In the head of every HTML report, by which an earlier report is recognised."""
