"""What is exported, in which formats, and what each column means."""
