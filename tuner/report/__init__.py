"""A study as one document: question, answer, evidence, and how it came about."""

MARK = '<meta name="generator" content="tuner '
"""In the head of every HTML report, by which an earlier report is recognised."""
