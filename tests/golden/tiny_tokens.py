"""Golden token ids of the tests' tiny vocabulary under each pre-tokenizer, by the library tokenizers (0.23).

usage: tiny_tokens.py > tiny-tokens.json     (in this folder)
Per text: ids with control tokens recognised ("special") and as plain text ("plain"), and how long the pieces are, in bytes,
within which pairs may merge ("pieces").
"""
import json, re
from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
source = open("../support/tiny_vocabulary.c", encoding="utf-8").read()
merges = [tuple(m.split(" ")) for m in re.findall(r'"([^" ]+ [^" ]+)"', source.split("merges[TINY_MERGES] = {")[1].split("};")[0])]


def spell(byte):
    """GPT-2's byte map."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    others = [b for b in range(256) if b not in printable]
    return chr(byte if byte in printable else 256 + others.index(byte))


vocab = {t: i for i, t in enumerate(CONTROLS + [spell(b) for b in range(256)] + [a + b for a, b in merges])}
splitters = {
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]),
}


def tokenizer(name, controls):
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=name == "llama-bpe"))
    t.pre_tokenizer = splitters[name]
    if controls:
        t.add_special_tokens([AddedToken(c, special=True, normalized=False) for c in CONTROLS])
    return t


texts = [case["text"] for case in json.load(open("tokens.json", encoding="utf-8"))] + [
    "the end", "It's we'll they've I'D 'S 'tis 'LL''re '", "x'sy 's ' s", "1234567 12 345, 6.78 ١٢٣٤ ½Ⅷ²", "a1b22c333d4444", " 1  2   3", "\u00a0\u00a0the\u3000\u2003 end \u2028\u2029x",
    "\u180ethe\u180e \u200bx\ufeff", " \n \n\n  the\n   and\r\n\r\n  \r x", "\t\tthe\t and", "   ", " ", "\n", "a   ", "a \n", "   \n   b", "\r\n \r\n", "\x1c\x1d\x1e\x1f\x85x\x0b\x0c y", "!!!the ???\n\n...x", "_the_ -and- (user)",
    "naïve caf\u00e9 e\u0301 \u0301x ñandú ßtraße", "中文 日本語テスト한국어", "\U0001f642\U0001f44d\U0001f3fd\u200d\U0001f680 the", "שלום مرحبا нет",
    "<|im_start|>user\nthe<|im_end|>\n", "<|im_start|><|im_start|>", "<|im_start|", "<|im_<|im_end|>", " <|endoftext|> ", "a<|endoftext|>b",
    "systemusersystem hellhello syst sy st", "the" * 50, " the" * 50, "a" * 500, " " * 500, " " * 500 + "x", "\n" * 300, "9" * 100, "'" * 100, "!" * 200 + "\n", "\u3000" * 100 + "a",
    "and\x00the\x01\x7f", "ſ's K'S ı'ſ", "\u01c5ǅa\u2160\u24b6 ªº",
]


def pieces(name, text):
    return [len(text[a:b].encode()) for _, (a, b) in splitters[name].pre_tokenize_str(text)]


cases = []
for text in texts:
    case = {"text": text}
    for name in splitters:
        case[name] = {"special": tokenizer(name, True).encode(text).ids, "plain": tokenizer(name, False).encode(text).ids, "pieces": pieces(name, text)}
    cases.append(case)
print("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "\n]")
