"""Measurements against the real pg_cron: sides → machine;  rows → sides;  report → rows, plot."""
