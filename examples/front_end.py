"""The exported front end from plain onnxruntime: python examples/front_end.py gama-onnx/prefix.onnx clip.wav"""

import os
import sys

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported: it sends usage statistics

import numpy as np
import onnxruntime
import soundfile

graph, clip = sys.argv[1:]
samples, rate = soundfile.read(clip, dtype="float32", always_2d=True)
assert rate == 16_000, f"{clip} has {rate} Hz: resample it to 16000"
waveform = samples.mean(axis=1)[None, :163_840]  # one channel, at most 10.24 s
lengths = np.array([waveform.shape[1]], dtype=np.int64)
session = onnxruntime.InferenceSession(graph)
(prefix,) = session.run(["prefix"], {"waveform": waveform, "lengths": lengths})
print(*prefix.shape, f"{np.linalg.norm(prefix):.3f}")
