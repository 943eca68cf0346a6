// Greedy text of a merged model in llama.cpp (node-llama-cpp 3.22.1, CPU) beside zsigma's, of the same token ids; run by hand:
//   node merged_text.mjs ZSIGMA FACTORED.gguf EXPERT.safetensors MERGED.gguf "question" …
// ZSIGMA is the program. Prints both texts of each question and how many are the same; they may part where two tokens are nearly as likely.
import { execFileSync } from "node:child_process";
import { getLlama } from "node-llama-cpp";

const [zsigma, factored, expert, merged, ...questions] = process.argv.slice(2);
const run = (args, input) => JSON.parse(execFileSync(zsigma, [...args, "--json", "--quiet"], { input, encoding: "utf8", stdio: ["pipe", "pipe", "ignore"] }));
const system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath: merged, gpuLayers: 0 });
const context = await model.createContext({ contextSize: 1024 });
const sequence = context.getSequence();
let same = 0;
for (const question of questions) {
    const ours = run(["ask", "-m", factored, "--strategy", "fixed", "--expert", expert, "-n", "24", "--temp", "0", question]).answer;
    const text = `<|im_start|>system\n${system}<|im_end|>\n<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;
    const { ids } = run(["tokenize", "-m", factored, "--special"], text);
    await sequence.clearHistory();
    const tokens = [];
    for await (const token of sequence.evaluate(ids, { temperature: 0 })) {
        tokens.push(token);
        if (tokens.length === 24) break;
    }
    const theirs = model.detokenize(tokens);
    same += ours.trim() === theirs.trim();
    console.log(JSON.stringify({ question, zsigma: ours, llama: theirs }));
}
console.log(`${same} of ${questions.length} are the same`);
await llama.dispose();
process.exit(same === questions.length ? 0 : 1);
