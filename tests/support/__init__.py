"""Small pytest plugins: which servers to test on, the servers, the fixtures, and patience."""
