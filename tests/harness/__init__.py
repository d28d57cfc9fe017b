"""Shared by tests: throw-away PostgreSQL servers, and worker processes on them."""
