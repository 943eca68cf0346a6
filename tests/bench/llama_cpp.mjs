// Measures llama.cpp (the prebuilt inside node-llama-cpp) on a GGUF file: prefill and decode, medians over runs, after one that warms up.
//   usage: node llama_cpp.mjs MODEL.gguf vulkan|cuda|cpu [runs] [prefill tokens] [decode tokens]
// Prints one JSON object: {"backend", "device", "prefill_tokens_per_s", "decode_tokens_per_s"}.
import { getLlama } from "node-llama-cpp";

const [path, backend = "vulkan", runs = "5", prefill = "512", decode = "128"] = process.argv.slice(2);
const llama = await getLlama({ gpu: backend === "cpu" ? false : backend, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath: path, gpuLayers: backend === "cpu" ? 0 : "max" });
const context = await model.createContext({ contextSize: Number(prefill) + Number(decode) + 64, batchSize: 512 });
const sequence = context.getSequence();

// The same ids as zsigma's bench: seeded and inside the vocabulary's ordinary tokens.
let state = 1;
function randomId() {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 1000 + (state % 30000);
}
const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];

// Kernels are compiled when first used; 128 tokens and one more take all that the runs do.
const warm = Array.from({ length: Math.min(128, Number(prefill)) }, randomId);
await sequence.evaluateWithoutGeneratingNewTokens(warm);
for await (const _ of sequence.evaluate([warm[0]], { temperature: 0, yieldEogToken: true })) break;

const prefillRates = [], decodeRates = [];
for (let run = 0; run < Number(runs); run++) {
    await sequence.clearHistory();
    const ids = Array.from({ length: Number(prefill) }, randomId);
    let start = performance.now();
    await sequence.evaluateWithoutGeneratingNewTokens(ids);
    prefillRates.push(ids.length / ((performance.now() - start) / 1000));

    await sequence.clearHistory();
    await sequence.evaluateWithoutGeneratingNewTokens(ids.slice(0, 16));
    start = performance.now();
    let count = 0;
    for await (const _ of sequence.evaluate([ids[16]], { temperature: 0, yieldEogToken: true })) {
        if (++count === Number(decode)) break;
    }
    decodeRates.push(count / ((performance.now() - start) / 1000));
}
const device = backend === "cpu" ? "CPU" : (await llama.getGpuDeviceNames()).join(", ");
console.log(JSON.stringify({ backend, device, prefill_tokens_per_s: median(prefillRates), decode_tokens_per_s: median(decodeRates) }));
await llama.dispose();
process.exit(0);
