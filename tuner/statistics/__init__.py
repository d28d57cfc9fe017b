"""Arrays in, numbers out: pure functions that know neither studies nor trials."""
