"""The cost of a difference: labels, scores and quality."""
