"""What is done to an ONNX file: cleaned, quantised, counted, and each weight stored once."""
