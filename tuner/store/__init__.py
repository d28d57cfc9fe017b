"""The database: who trains what and with what result, exactly once. Nothing here loads torch."""
