"""Telling people and programs elsewhere that a study has ended, or that trials have failed."""
