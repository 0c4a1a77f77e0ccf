"""What a model is: source models and how they are opened, the ONNX artefact, inputs and their domains."""
