"""What a study's data and cost look like, before hours are spent on it."""
