"""Proving: comparison maths, tolerances, and running two models side by side."""
