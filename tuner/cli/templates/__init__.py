"""The starting files that `tuner new` writes; they run as they are, under the names they have."""
