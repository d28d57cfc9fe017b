"""The web side: optuna-dashboard, read-only, over one cached storage."""
