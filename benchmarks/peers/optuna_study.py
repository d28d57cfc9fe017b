"""Optuna with the notebook loop as its objective: a grid on SQLite, one process."""

from benchmarks.peers import grid
from benchmarks.peers.loop import train

if __name__ == "__main__":
    grid.run(train)
