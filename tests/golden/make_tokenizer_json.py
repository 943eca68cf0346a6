"""tokenizer.json files of the real tokenizers, in the ways that Hugging Face's converters write them. Run by hand.

usage: make_tokenizer_json.py LLAMA3_TOKENIZER_MODEL MISTRAL_TOKENIZER_MODEL FOLDER
Needs the packages sentencepiece and tokenizers.
"""
import base64
import os
import sys

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPACE = "\u2581"


PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTE_MAP = dict(zip(PRINTABLE + [b for b in range(256) if b not in PRINTABLE], [chr(b) for b in PRINTABLE] + [chr(256 + i) for i in range(68)]))


def spell(data):
    """GPT-2's byte map."""
    return "".join(BYTE_MAP[b] for b in data)


def byte_level(ranks, pattern, ignore_merges, normalizer=None):
    vocab, merges = {spell(t): r for t, r in ranks.items()}, []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        local = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += sorted(((spell(a), spell(b)) for a, b in local), key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=ignore_merges))
    by_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    if pattern == "digits":
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), by_level]) if pattern else by_level
    if normalizer:
        t.normalizer = normalizer
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    t.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    t.add_tokens([AddedToken("<user>", normalized=False)])
    return t


def sentencepiece_bpe(path, metaspace):
    model = sentencepiece.SentencePieceProcessor(model_file=path)
    pieces = [model.id_to_piece(i) for i in range(model.vocab_size())]
    vocab = {p: i for i, p in enumerate(pieces)}
    merges = []
    for piece in pieces:
        local = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocab and piece[i:] in vocab]
        merges += [(model.get_score(vocab[piece]), pair) for pair in sorted(local, key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))]
    merges = [pair for _, pair in sorted(merges, key=lambda item: -item[0])]
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        t.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=metaspace, split=False)
    else:
        t.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    special = [p for i, p in enumerate(pieces) if model.is_control(i) or model.is_unknown(i)]
    t.add_special_tokens([AddedToken(p, special=True, normalized=False) for p in special])
    t.add_tokens([AddedToken("<user>", normalized=False)])
    return t


def main():
    llama3, mistral, folder = sys.argv[1:4]
    with open(llama3, "rb") as file:
        ranks = {base64.b64decode(a): int(b) for a, b in (line.split() for line in file.read().splitlines() if line)}
    made = {
        "llama3": byte_level(ranks, LLAMA3, True),
        "qwen2": byte_level(ranks, QWEN2, False),
        "qwen2-nfc": byte_level(ranks, QWEN2, False, normalizers.NFC()),
        "gpt2": byte_level(ranks, None, False),
        "smollm": byte_level(ranks, "digits", False),
        "mistral-prepend": sentencepiece_bpe(mistral, None),
        "mistral-first": sentencepiece_bpe(mistral, "first"),
        "mistral-always": sentencepiece_bpe(mistral, "always"),
        "mistral-never": sentencepiece_bpe(mistral, "never"),
    }
    os.makedirs(folder, exist_ok=True)
    for name, tokenizer in made.items():
        tokenizer.save(os.path.join(folder, name + ".json"))


main()
