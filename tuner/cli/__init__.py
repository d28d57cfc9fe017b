"""The command line. Only this room prints and sets exit codes."""
