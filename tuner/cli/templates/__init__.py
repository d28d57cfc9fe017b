"""The starter files that `tuner new` writes; they also run as they are here."""
