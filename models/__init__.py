"""Models: sources and how they are opened, ONNX files, inputs and their domains."""
