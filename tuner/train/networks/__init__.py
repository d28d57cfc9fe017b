"""Image networks that any objective may offer, with their parameters."""
