"""Groups of workers: the contract of a fleet, and the engines that implement it."""
