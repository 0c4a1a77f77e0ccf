"""Running a source and its ONNX model side by side, explaining and searching for differences."""
