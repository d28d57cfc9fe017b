"""A trained network on its own: saved with all it takes to predict, checked, and used again."""
