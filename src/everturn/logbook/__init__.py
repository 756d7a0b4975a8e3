"""The service's own book, in one SQLite file: webhooks that came in, what admins did, sweeps, and sizes over time."""
