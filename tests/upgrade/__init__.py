"""Real upgrades of a server from one major to the next, with the jobs in it."""
