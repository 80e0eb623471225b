"""A Patroni cluster whose primary is cut off the network: run on demand by the script `lane`."""
