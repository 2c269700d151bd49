"""Answers without torch: onnxruntime, tokenizers, soundfile and numpy alone."""
