"""Sources of an objective's images: arrays, folders, archives, tables of files."""
