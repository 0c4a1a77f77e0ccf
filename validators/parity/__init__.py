"""Run a source and its ONNX model on the same rows, explain differences and search for them."""
