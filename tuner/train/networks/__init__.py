"""Networks for images that any objective may offer, with their parameters."""
