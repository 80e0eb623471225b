"""Two sessions and one job: what is open in one may not be seen, lost or held up in another."""
