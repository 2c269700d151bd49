"""Models leave PyTorch: ONNX graphs, adapters, merged checkpoints."""
