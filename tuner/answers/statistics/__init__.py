"""Statistics: pure functions over arrays, which know neither studies nor trials."""
