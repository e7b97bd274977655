"""What runs a model: torch or ONNX Runtime, on CPUs and GPUs."""
