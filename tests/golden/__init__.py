"""What people and machines read of stored studies, as golden files."""
