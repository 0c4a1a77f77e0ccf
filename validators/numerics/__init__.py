"""When two numbers are the same: comparison, tolerance and rounding."""
