// The exported front end from JavaScript: npm install onnxruntime-node, then
// node examples/front_end.js gama-onnx/prefix.onnx clip.wav
"use strict";

process.env.ORT_DISABLE_TELEMETRY ??= "1"; // read when onnxruntime is loaded: it sends usage statistics

const fs = require("node:fs");
const ort = require("onnxruntime-node");

/** Samples in [-1, 1] of a WAV file: 16 kHz, 16-bit or float32, the mean of its channels, at most 10.24 s. */
function readWav(path) {
  const file = fs.readFileSync(path);
  if (file.toString("latin1", 0, 4) !== "RIFF") throw new Error(`${path} is no WAV file`);
  let format = null;
  for (let at = 12; at + 8 <= file.length; ) {
    const name = file.toString("latin1", at, at + 4);
    const size = file.readUInt32LE(at + 4);
    const body = at + 8;
    if (name === "fmt ") {
      const [kind, channels, rate] = [file.readUInt16LE(body), file.readUInt16LE(body + 2), file.readUInt32LE(body + 4)];
      format = { channels, rate, bytes: file.readUInt16LE(body + 14) / 8, float: kind === 3 };
      if (rate !== 16000) throw new Error(`${path} has ${rate} Hz: resample it to 16000`);
    } else if (name === "data") {
      const count = Math.min(163840, Math.floor(size / (format.bytes * format.channels)));
      const read = (i) => (format.float ? file.readFloatLE(body + 4 * i) : file.readInt16LE(body + 2 * i) / 32768);
      return Float32Array.from({ length: count }, (_, i) => {
        let sum = 0;
        for (let c = 0; c < format.channels; c++) sum += read(i * format.channels + c);
        return sum / format.channels;
      });
    }
    at = body + size + (size % 2);
  }
  throw new Error(`${path} holds no samples`);
}

async function main([graph, clip]) {
  const samples = readWav(clip);
  const session = await ort.InferenceSession.create(graph);
  const { prefix } = await session.run({
    waveform: new ort.Tensor("float32", samples, [1, samples.length]),
    lengths: new ort.Tensor("int64", BigInt64Array.from([BigInt(samples.length)]), [1]),
  });
  const norm = Math.sqrt(prefix.data.reduce((sum, value) => sum + value * value, 0));
  console.log(...prefix.dims, norm.toFixed(3));
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
