"""Measuring: the plan of cells, the isolated worker that measures one, and the statistics."""
