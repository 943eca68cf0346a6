#!/usr/bin/env python3
"""Learning from given answers: zsigma beside PyTorch doing it as the paper's authors do, W' = U diag(σ ⊙ z) Vᵀ made anew in every step and
autograd through all of it, in f32, on random weights of SmolLM2-135M's shapes.

    usage: learning.py MODEL.gguf [--lines N] [--words N] [--answer N] [--alike N] [--rounds N] [--device cpu|cuda] [--zsigma PROGRAM]

MODEL is SmolLM2-135M-Instruct, factored. A step has so many lines of so many words (a token each, and a dozen around them), of which
the last are the answer; --alike of them (default 1) have the same prompt, as rollouts do. Each round (default 3) measures both, one
after the other; needs torch. Sampling answers is not part of it. Exit status 1 when zsigma is slower than 0.4 × PyTorch on CPUs, or than PyTorch on a GPU.
"""
import argparse
import json
import math
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

LAYERS, HIDDEN, FFN, HEADS, KV_HEADS, HEAD, VOCAB = 30, 576, 1536, 9, 3, 64, 49152
WORDS = "time year people way day man thing woman life child world school state family student group country problem hand part".split()


class Factored(torch.nn.Module):
    def __init__(self, out, inner, device):
        super().__init__()
        rank = min(out, inner)
        self.u = torch.randn(out, rank, device=device) / math.sqrt(rank)
        self.sigma = torch.rand(rank, device=device)
        self.vt = torch.randn(rank, inner, device=device) / math.sqrt(inner)
        self.z = torch.nn.Parameter(torch.ones(rank, device=device))

    def forward(self, x):
        return x @ ((self.u * (self.sigma * self.z)) @ self.vt).T


class Layer(torch.nn.Module):
    def __init__(self, device):
        super().__init__()
        make = lambda out, inner: Factored(out, inner, device)
        self.q, self.k, self.v = make(HEADS * HEAD, HIDDEN), make(KV_HEADS * HEAD, HIDDEN), make(KV_HEADS * HEAD, HIDDEN)
        self.o = make(HIDDEN, HEADS * HEAD)
        self.gate, self.up, self.down = make(FFN, HIDDEN), make(FFN, HIDDEN), make(HIDDEN, FFN)

    def forward(self, x, cos, sin):
        lines, length, _ = x.shape
        heads = lambda y: y.view(lines, length, -1, HEAD).transpose(1, 2)
        turn = lambda y: y * cos + torch.cat((-y[..., HEAD // 2:], y[..., :HEAD // 2]), -1) * sin
        h = F.rms_norm(x, (HIDDEN,))
        q, k, v = turn(heads(self.q(h))), turn(heads(self.k(h))), heads(self.v(h))
        k, v = (y.repeat_interleave(HEADS // KV_HEADS, 1) for y in (k, v))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(attended.transpose(1, 2).reshape(lines, length, -1))
        h = F.rms_norm(x, (HIDDEN,))
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(torch.nn.Module):
    def __init__(self, device):
        super().__init__()
        self.embedding = torch.randn(VOCAB, HIDDEN, device=device) * 0.02
        self.layers = torch.nn.ModuleList(Layer(device) for _ in range(LAYERS))

    def forward(self, ids, answer):
        x = self.embedding[ids]
        angles = torch.arange(ids.shape[1], device=ids.device)[:, None] / 10000 ** (torch.arange(0, HEAD, 2, device=ids.device) / HEAD)
        cos, sin = (f(torch.cat((angles, angles), -1)) for f in (torch.cos, torch.sin))
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits = F.rms_norm(x[:, -answer - 1:-1], (HIDDEN,)) @ self.embedding.T
        return F.cross_entropy(logits.flatten(0, 1), ids[:, -answer:].flatten())


class Peer:
    """PyTorch's side."""

    def __init__(self, device):
        torch.manual_seed(1)
        self.device = device
        self.decoder = Decoder(device)
        self.optimiser = torch.optim.AdamW(self.decoder.parameters(), lr=2e-3)

    def step(self, lines, length, answer):
        """Seconds of a step; the second of two."""
        for _ in range(2):
            ids = torch.randint(VOCAB, (lines, length), device=self.device)
            start = time.monotonic()
            self.optimiser.zero_grad()
            self.decoder(ids, answer).backward()
            torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), 1)
            self.optimiser.step()
            if self.device == "cuda":
                torch.cuda.synchronize()
            seconds = time.monotonic() - start
        return seconds

    def memory(self):
        if self.device == "cuda":
            return torch.cuda.max_memory_allocated()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def zsigma_step(program, model, folder, lines):
    """Seconds and tokens of a step; the second of two, the kernels being there then."""
    log = folder / "log.jsonl"
    command = [program, "train", "-m", model, "--task", "sft", "--data", folder / "data.jsonl", "-o", folder / "expert.safetensors", "--batch",
               str(lines), "--steps", "2", "--log", log, "--force", "--quiet"]
    for left in folder.glob("expert.safetensors*"):
        left.unlink()
    subprocess.run(command, check=True)
    line = json.loads(log.read_text().splitlines()[1])
    return line["learn_ms"] / 1000, line["tokens"]


def write_data(path, lines, words, answer, alike):
    draw = random.Random(1)
    text = lambda count: " ".join(draw.choice(WORDS) for _ in range(count))
    with open(path, "w") as file:
        for line in range(lines):
            if line % alike == 0:
                prompt = text(words - answer)
            print(json.dumps({"prompt": prompt, "answer": text(answer)}), file=file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--lines", type=int, default=8)
    parser.add_argument("--words", type=int, default=48)
    parser.add_argument("--answer", type=int, default=16)
    parser.add_argument("--alike", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--zsigma", default=pathlib.Path(__file__).parents[2] / "build" / "zsigma")
    o = parser.parse_args()
    peer, rows = Peer(o.device), []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_data(folder / "data.jsonl", o.lines, o.words, o.answer, o.alike)
        for _ in range(o.rounds):
            seconds, tokens = zsigma_step(o.zsigma, o.model, folder, o.lines)
            length = round(tokens / o.lines)
            rows.append((tokens / seconds, o.lines * length / peer.step(o.lines, length, o.answer)))
    ours, theirs = (statistics.median(column) for column in zip(*rows))
    ratio = statistics.median(a / b for a, b in rows)
    memory = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    bar = 1.0 if o.device == "cuda" else 0.4
    print(f"a step of {o.lines} lines of {length} tokens, {o.alike} to a prompt, medians of {o.rounds} rounds")
    print(f"zsigma   {ours:8.1f} tokens/s  {memory / 1e6:8.0f} MB of host memory at most")
    print(f"PyTorch  {theirs:8.1f} tokens/s  {peer.memory() / 1e6:8.0f} MB of {'device' if o.device == 'cuda' else 'host'} memory at most")
    print(f"zsigma / PyTorch: {ratio:.2f} ×, bar {bar} ×{'' if ratio >= bar else ': missed'}")
    sys.exit(ratio < bar)


if __name__ == "__main__":
    main()
