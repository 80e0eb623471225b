"""The tests: unit, regress, isolation, server, upgrade, house, docker."""
