"""Notifies webhooks and commands when a study ends or trials fail."""
