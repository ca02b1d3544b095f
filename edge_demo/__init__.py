"""The torch-free runtime that opens a package: numpy, onnxruntime and tokenizers only."""
