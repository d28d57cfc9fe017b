"""Objectives that come with tuner; each is found by its name, never imported from here."""
