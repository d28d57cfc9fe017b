"""Workers: a supervisor that holds the lease, and a trainer process that it feeds."""
