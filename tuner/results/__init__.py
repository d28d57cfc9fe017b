"""A study as it is stored: its trials, their predictions, and samples for the statistics."""
