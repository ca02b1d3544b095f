"""From a saved Hugging Face model folder to a verified, quantised ONNX package."""
