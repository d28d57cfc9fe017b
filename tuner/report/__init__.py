"""A study as one document: question, answer, evidence, and how it came about."""
