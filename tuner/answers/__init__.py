"""The questions that people ask of a study, one module each. Nothing here loads torch."""
