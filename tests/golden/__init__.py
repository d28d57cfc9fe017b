"""The output of reading commands on stored studies, as golden files."""
