"""Migrations of the schema `tuner`, in the order of their numbers."""
