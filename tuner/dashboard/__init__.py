"""Live web pages for all studies, with optuna-dashboard beside them."""
