"""A trained network by itself: saved with everything needed to predict, verified, and loaded."""
