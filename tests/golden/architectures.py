"""Makes architectures/: tiny random checkpoints of each architecture by transformers, and the log-probabilities it gives them.

    pip install torch transformers safetensors
    python3 architectures.py

Weights are bf16 values computed in f32 (eager attention, CPU). The text has 90 tokens: longer than the sliding window of 24, longer
than Llama 3.1's original context of 16. expected.json: per model log π(ids[t] | ids[0 … t − 1]) for t = 1 … 89.
"""
import json
import os
import shutil

import torch
import transformers

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "architectures")
SIZES = dict(hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=160,
             max_position_embeddings=128, bos_token_id=0, eos_token_id=1)
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
MODELS = {
    "llama2": transformers.LlamaConfig(**{**SIZES, "num_key_value_heads": 4}),
    "llama3.1": transformers.LlamaConfig(**SIZES, rope_theta=5e5, rope_scaling={**LLAMA3, "rope_theta": 5e5}, rms_norm_eps=1e-5),
    "llama-linear": transformers.LlamaConfig(**SIZES, rope_scaling={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}),
    "mistral": transformers.MistralConfig(**SIZES, sliding_window=24),
    "mistral-v0.3": transformers.MistralConfig(**SIZES, sliding_window=None, rope_theta=1e6, head_dim=20),
    "qwen2": transformers.Qwen2Config(**SIZES, tie_word_embeddings=True, rope_theta=1e6),
    # Every third layer sees all positions, by rotary positions of their own; scores are scaled by 1/√16, not 1/√20.
    "gemma3": transformers.Gemma3TextConfig(
        **{**SIZES, "num_hidden_layers": 4}, head_dim=20, query_pre_attn_scalar=16, sliding_window=24,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
                         "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6}}),
}


def randomise(model, generator):
    for name, parameter in model.named_parameters():
        if "norm" in name:
            value = ("Gemma" not in type(model).__name__) + 0.2 * torch.randn(parameter.shape, generator=generator)
        elif name.endswith("bias"):
            value = 0.5 * torch.randn(parameter.shape, generator=generator)
        elif "embed" in name or "lm_head" in name:
            value = 0.6 * torch.randn(parameter.shape, generator=generator)
        else:
            value = 1.5 / parameter.shape[1] ** 0.5 * torch.randn(parameter.shape, generator=generator)
        parameter.data = value.to(torch.bfloat16).to(torch.float32)


def main():
    generator = torch.Generator().manual_seed(20261125)
    ids = torch.randint(2, 160, (90,), generator=generator)
    expected = {"ids": ids.tolist(), "transformers": transformers.__version__, "logprobs": {}}
    shutil.rmtree(FOLDER, ignore_errors=True)
    for name, config in MODELS.items():
        config._attn_implementation = "eager"
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        randomise(model, generator)
        with torch.no_grad():
            logprobs = torch.log_softmax(model(ids[None]).logits[0].double(), dim=-1)
        expected["logprobs"][name] = [round(logprobs[t - 1, ids[t]].item(), 7) for t in range(1, len(ids))]
        folder = os.path.join(FOLDER, name)
        model.to(torch.bfloat16).save_pretrained(folder)
        os.remove(os.path.join(folder, "generation_config.json"))
    with open(os.path.join(FOLDER, "expected.json"), "w") as f:
        json.dump(expected, f, indent=1)


main()
