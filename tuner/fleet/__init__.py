"""Where workers run: a contract, and the engines that implement it."""
