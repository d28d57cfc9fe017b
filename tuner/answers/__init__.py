"""What a study found: rows, tables and exports. Nothing here loads torch."""
