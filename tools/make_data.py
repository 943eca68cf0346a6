#!/usr/bin/env python3
"""Verifiable questions for experts and for the dispatcher, as JSON Lines {"id", "prompt", "answer", "category", "generator"}.

  python3 -m venv venv && venv/bin/pip install reasoning-gym==0.1.25
  usage: make_data.py OUTPUT_DIR [--train N] [--valid N] [--test N] [--unseen N] [--labelled N] [--mixed N]

OUTPUT_DIR/CATEGORY/{train,valid,test}.jsonl hold questions of the category's generators in equal shares, no question twice;
unseen.jsonl those of one more generator, which training never meets. dispatch.jsonl has labelled questions of every category, "other"
among them, for `train --task classify`, and mixed.jsonl as many of each category's test questions, to measure strategies.
The same sizes give the same files: all seeds are fixed. Score math as numeric, code and reasoning as label.
"""
import argparse
import contextlib
import io
import itertools
import json
import pathlib
import random

import reasoning_gym

SEED = 1

PEOPLE = "Tom Anna Maria Sam Lena Omar Ravi Yuki Ines Paul Noor Kofi Vera Luca Mei Jonas".split()
THINGS = "apples books coins marbles pens stickers shells cards buttons stamps cups seeds".split()
ROOMS = "kitchen garden cellar attic bathroom bedroom garage library office hallway".split()
WORDS = """apple river stone light cloud green table house music paper silver garden winter orange window bottle candle forest
hammer island jacket kitten ladder market needle ocean pencil rabbit saddle tunnel violet wagon""".split()


def gym(name, question=str, **settings):
    """Endless (question, answer) of a data set of reasoning-gym."""
    def items(seed):
        for start in itertools.count(1_000_000 * seed, 500):  # an item is drawn with seed + its place
            for item in reasoning_gym.create_dataset(name, seed=start, size=500, **settings):
                yield question(item["question"].strip()), str(item["answer"]).strip()
    return items


def drawn(make):
    """Endless (question, answer) of a function of a random generator."""
    def items(seed):
        rng = random.Random(seed)
        while True:
            yield make(rng)
    return items


# ---- mathematics ----

def number_only(question):
    return f"{question} Reply with the number only."


def product(rng):
    a, b = rng.randint(2, 12), rng.randint(2, 20)
    form = rng.choice(["What is {} * {}?", "What is {} times {}?", "What is {} x {}?", "Multiply {} by {}.",
                       "What is the product of {} and {}?"])
    return number_only(form.format(a, b)), str(a * b)


def word_problem(rng):
    a, b = rng.randint(2, 30), rng.randint(2, 20)
    more, less = max(a, b), min(a, b)
    packs, each = rng.randint(2, 9), rng.randint(2, 9)
    who, other = rng.sample(PEOPLE, 2)
    things = rng.choice(THINGS)
    text, answer = rng.choice([
        (f"{who} has {a} {things} and buys {b} more. How many {things} does {who} have now?", a + b),
        (f"{who} has {more} {things} and gives {less} of them to {other}. How many {things} does {who} have left?", more - less),
        (f"{who} has {packs} boxes with {each} {things} in each. How many {things} does {who} have?", packs * each),
        (f"{who} has {a} {things} and {other} has {b}. How many {things} do they have together?", a + b),
        (f"{who} shares {packs * each} {things} equally among {packs} friends. How many {things} does each friend get?", each),
        (f"{who} has {more} {things} and {other} has {less}. How many more {things} does {who} have?", more - less),
    ])
    return number_only(text), str(answer)


# ---- reading code ----

def printed(source):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(source, {})
    return f"What does this Python code print? Reply with the output only.\n```python\n{source}\n```", out.getvalue().strip()


def number_program(rng):
    x, y, k = rng.randint(1, 20), rng.randint(1, 9), rng.randint(2, 5)
    return printed(rng.choice([
        f"x = {x}\ny = {y}\nprint(x {rng.choice('+-*')} y)",
        f"x = {x}\ny = x + {y}\nprint(y * {k})",
        f"print({x} // {k})",
        f"print({x} % {k})",
        f"x = {x}\nif x > {y + 5}:\n    print('yes')\nelse:\n    print('no')",
        f"def f(a, b):\n    return a - b\n\nprint(f({x}, {y}))",
    ]))


def list_program(rng):
    values = [rng.randint(0, 20) for _ in range(rng.randint(3, 6))]
    place = rng.randrange(len(values))
    call = rng.choice([f"a[{place}]", "max(a)", "min(a)", "len(a)", "a[-1]", "sorted(a)", "a[1:3]"])
    return printed(f"a = {values}\nprint({call})")


def text_program(rng):
    word, other = rng.sample(WORDS, 2)
    call = rng.choice([f"s[{rng.randrange(3)}]", "len(s)", "s.upper()", "s[-1]", f"s + '{other}'", "s[:2]", f"s * {rng.randint(2, 3)}",
                       f"'{word[rng.randrange(len(word))]}' in s", f"s == '{rng.choice([word, other])}'"])
    return printed(f"s = '{word}'\nprint({call})")


def loop_program(rng):
    start, count = rng.randint(0, 9), rng.randint(2, 5)
    return printed(rng.choice([
        f"t = {start}\nfor i in range({count}):\n    t += {rng.randint(1, 5)}\nprint(t)",
        f"t = 0\nfor i in range({count}):\n    t += i\nprint(t + {start})",
        f"n = {start + 9}\nwhile n > {count + 3}:\n    n -= {rng.randint(2, 4)}\nprint(n)",
        f"words = {rng.sample(WORDS, count)}\nfor w in words:\n    last = w\nprint(last)",
    ]))


# ---- reasoning ----

def order(rng):
    people = rng.sample(PEOPLE, rng.randint(3, 4))
    more, most, least = rng.choice([("taller", "tallest", "shortest"), ("older", "oldest", "youngest"), ("faster", "fastest", "slowest"),
                                    ("stronger", "strongest", "weakest"), ("richer", "richest", "poorest")])
    facts = [f"{a} is {more} than {b}." for a, b in zip(people, people[1:])]
    rng.shuffle(facts)
    wanted, answer = rng.choice([(most, people[0]), (least, people[-1])])
    return f"{' '.join(facts)}\n\nWho is the {wanted}? Answer with the name only.", answer


def place(rng):
    people = rng.sample(PEOPLE, 3)
    at = {}
    facts = []
    for who in people + rng.choices(people, k=rng.randint(0, 2)):
        at[who] = rng.choice([room for room in ROOMS if room != at.get(who)])
        facts.append(f"{who} {rng.choice(['goes', 'walks', 'runs', 'moves'])} to the {at[who]}.")
    who = rng.choice(people)
    return f"{' '.join(facts)}\n\nWhere is {who} now? Answer with one word.", at[who]


# ---- anything else ----

COUNTRIES = """Albania Algeria Angola Argentina Austria Bangladesh Belgium Bolivia Brazil Bulgaria Cambodia Canada Chad Chile China
Colombia Croatia Cuba Cyprus Denmark Ecuador Egypt Estonia Ethiopia Fiji Finland France Germany Ghana Greece Guatemala Haiti Honduras
Hungary Iceland India Indonesia Iran Iraq Ireland Italy Jamaica Japan Jordan Kenya Kuwait Laos Latvia Lebanon Libya Lithuania Malta Mexico
Mongolia Morocco Nepal Niger Nigeria Norway Oman Pakistan Panama Peru Poland Portugal Qatar Romania Rwanda Senegal Serbia Singapore
Slovakia Slovenia Spain Sudan Sweden Switzerland Syria Thailand Tunisia Turkey Uganda Ukraine Uruguay Vietnam Zambia""".split()
SUBJECTS = """the sea, a lost dog, autumn, an old lighthouse, a train journey, two brothers, the moon, a busy kitchen, snow, a garden,
a birthday, the desert, a quiet library, rain, a market""".replace("\n", " ").split(", ")
LANGUAGES = "French German Spanish Italian Portuguese Dutch Swedish Polish".split()


def other_question(rng):
    country, subject, language, word = (rng.choice(c) for c in (COUNTRIES, SUBJECTS, LANGUAGES, WORDS))
    return rng.choice([
        f"What is the capital of {country}?", f"Which languages are spoken in {country}?", f"What food is {country} known for?",
        f"On which continent is {country}?", f"What should I see on a trip to {country}?",
        f"Write a short poem about {subject}.", f"Tell me a story about {subject}.", f"Write a friendly letter about {subject}.",
        f"Suggest a title for a book about {subject}.", f"How do you say \"{word}\" in {language}?",
        f"What does the word \"{word}\" mean?", f"Use the word \"{word}\" in a sentence.",
        f"Translate this into {language}: I like {subject}.",
        f"Summarise the history of {country} in two sentences.",
    ]), ""


# ---- categories ----

SEEN = {
    "math": {
        "sums": gym("chain_sum", number_only, min_terms=2, max_terms=2, min_digits=1, max_digits=2),
        "products": drawn(product),
        "words": drawn(word_problem),
    },
    "code": {"numbers": drawn(number_program), "lists": drawn(list_program), "texts": drawn(text_program)},
    "reasoning": {
        "syllogisms": gym("syllogism"),
        "families": gym("family_relationships"),
        "orders": drawn(order),
        "places": drawn(place),
    },
}
UNSEEN = {
    "math": {"brackets": gym("basic_arithmetic", number_only, min_terms=2, max_terms=3, min_digits=1, max_digits=1)},
    "code": {"loops": drawn(loop_program)},
    "reasoning": {"reading": gym("needle_haystack", min_num_statements=5, max_num_statements=10)},
}
OTHER = {"other": {"general": drawn(other_question)}}


def take(category, generators, count, first, seen):
    """count questions, of each generator in turn, none of which is in seen; a generator that has no new one left is passed over."""
    streams = {name: make(first + place) for place, (name, make) in enumerate(generators.items())}
    out = []
    while len(out) < count and streams:
        for name in list(streams):
            fresh = next((x for x in itertools.islice(streams[name], 1000) if x[0] not in seen), None)
            if fresh is None:
                del streams[name]
            elif len(out) < count:
                seen.add(fresh[0])
                out.append({"id": f"{category}-{name}-{len(out)}", "prompt": fresh[0], "answer": fresh[1], "category": category,
                            "generator": name})
    if len(out) < count:
        raise SystemExit(f"{category} has no more than {len(out)} different questions: {count} were wanted")
    return out


def write(path, items):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))
    print(f"{path}: {len(items)}")


def make_category(category, sizes, folder):
    """Writes the category's files. Returns its test questions and the labelled ones, which are neither trained on nor tested."""
    seen = set()
    items = take(category, SEEN[category], sizes.train + sizes.valid + sizes.test + sizes.labelled, 1, seen)
    random.Random(SEED).shuffle(items)
    parts = {}
    for name in ("train", "valid", "test", "labelled"):
        parts[name] = items[:getattr(sizes, name)]
        del items[:getattr(sizes, name)]
    for name in ("train", "valid", "test"):
        write(folder / category / f"{name}.jsonl", parts[name])
    write(folder / category / "unseen.jsonl", take(category, UNSEEN[category], sizes.unseen, 500, seen))
    return parts["test"], parts["labelled"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, metavar="OUTPUT_DIR")
    for name, size in (("train", 2000), ("valid", 128), ("test", 512), ("unseen", 256), ("labelled", 250), ("mixed", 128)):
        parser.add_argument(f"--{name}", type=int, default=size, help=f"questions of a category; default: {size}")
    sizes = parser.parse_args()
    labelled, mixed = take("other", OTHER["other"], sizes.labelled, 1, set()), []
    for category in SEEN:
        test, more = make_category(category, sizes, sizes.folder)
        mixed += test[:sizes.mixed]
        labelled += more
    rng = random.Random(SEED)
    rng.shuffle(labelled)
    rng.shuffle(mixed)
    write(sizes.folder / "dispatch.jsonl", [item | {"answer": item["category"]} for item in labelled])
    write(sizes.folder / "mixed.jsonl", mixed)


if __name__ == "__main__":
    main()
