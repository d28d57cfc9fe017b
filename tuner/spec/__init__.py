"""Study files: reading and checking them, their space, and their identity."""
