"""Statistics on arrays: pure functions that know neither studies nor trials."""
