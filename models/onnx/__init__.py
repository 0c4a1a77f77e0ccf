"""The ONNX model itself: its file, its sessions, its graph run step by step, and as a source."""
