"""Rows as they are stored: trials, means over seeds, predictions."""
