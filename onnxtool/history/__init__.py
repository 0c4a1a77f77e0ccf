"""Reports over time: the numbers of each model by commit, their changes, and the level that a new run must keep."""
