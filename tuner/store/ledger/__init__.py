"""Who trains which trial and with what result, exactly once: `ledger.Ledger` and its parts."""
