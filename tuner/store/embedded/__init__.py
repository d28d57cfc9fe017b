"""PostgreSQL from a wheel, for one machine: `server` joins it, `keeper` keeps it running."""
