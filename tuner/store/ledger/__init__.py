"""Who trains which trial, and what came of it, exactly once: `ledger.Ledger` and its parts."""
