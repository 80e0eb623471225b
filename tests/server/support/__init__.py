"""Small help for the server tests: jobs that run once, their records, and what the launcher is doing."""
