"""The fuzz target of the schedule core, and the inputs it has found worth keeping."""
