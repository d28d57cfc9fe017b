"""Importing this module does what every program does once, before programs are forked."""

from tuner.spec import study

# Pydantic needs 20 ms to build what validates a study, and each command and worker reads one.
study._adapter()
