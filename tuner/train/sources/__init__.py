"""Where an objective's images may come from: arrays, folders, archives, tables of files."""
