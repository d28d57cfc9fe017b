"""The database: who trains what, what came of it, exactly once. Nothing here loads torch."""
