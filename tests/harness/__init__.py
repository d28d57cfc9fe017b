"""What tests share: throw-away PostgreSQL servers, and worker processes on them."""
