"""Edits of ONNX graphs that belong to no framework."""
