"""What the graph of each kind of task has around the model. With torch, as ``exporters.to_onnx``."""
