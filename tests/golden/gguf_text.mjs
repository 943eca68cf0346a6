// Greedy text of a GGUF file in llama.cpp (node-llama-cpp 3.22.1, CPU) beside zsigma's, of the same token ids; run by hand:
//   node gguf_text.mjs ZSIGMA MODEL.gguf gemma "question" …
// ZSIGMA is the program, gemma the family of the chat template (only that one is spelled here). Prints both texts of each question and
// how many are the same; they may part where two tokens are nearly as likely.
import { execFileSync } from "node:child_process";
import { getLlama } from "node-llama-cpp";

const templates = { gemma: (q) => `<bos><start_of_turn>user\n${q}<end_of_turn>\n<start_of_turn>model\n` };
const [zsigma, file, family, ...questions] = process.argv.slice(2);
const count = 20;
const run = (args, input) => JSON.parse(execFileSync(zsigma, [...args, "--json", "--quiet"], { input, encoding: "utf8", stdio: ["pipe", "pipe", "ignore"] }));
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" });
const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
const context = await model.createContext({ contextSize: 2048 });
const sequence = context.getSequence();
let same = 0;
for (const question of questions) {
    const text = templates[family](question);
    const ours = run(["ask", "-m", file, "--strategy", "none", "--chat-template", family, "-n", String(count), "--temp", "0", question]).answer;
    const { ids } = run(["tokenize", "-m", file, "--special"], text);
    if (JSON.stringify(ids) !== JSON.stringify(Array.from(model.tokenize(text, true)))) throw new Error(`ids differ: ${text}`);
    await sequence.clearHistory();
    const tokens = [];
    for await (const token of sequence.evaluate(ids, { temperature: 0 })) {
        tokens.push(token);
        if (tokens.length === count) break;
    }
    const theirs = model.detokenize(tokens);
    same += ours.trim() === theirs.trim();
    console.log(JSON.stringify({ question, zsigma: ours, llama: theirs }));
}
console.log(`${same} of ${questions.length} are the same`);
await llama.dispose();
process.exit(same === questions.length ? 0 : 1);
