"""onnxtool: convert trained models to ONNX, prove that they still say the same, and measure them."""
