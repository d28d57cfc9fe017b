"""From stored predictions to panels of numbers: what is measured, on which trials."""
