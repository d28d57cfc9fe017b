"""The command line: parse, call down, print. Only this room prints and sets exit codes."""
