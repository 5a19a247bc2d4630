#!/usr/bin/env python3
"""Makes a seeded tree of source-like files: corpus.py DIRECTORY FILES [SEED].

Sizes follow those of a large source tree: about half of the files are under 4 KiB, the mean is 14 KB. The same
arguments give the same bytes on every machine.
"""

import os
import random
import sys

WORDS = (
    "let mut self return match Some None Ok Err fn impl struct enum pub use crate std result error path buffer "
    "length index value config watch queue commit push remote object tree blob index pack entry offset header "
    "for while loop if else break continue async await move ref static const type where trait dyn Box Vec String"
).split()


def pool(rng, size):
    lines = []
    total = 0
    while total < size:
        indent = "    " * rng.randrange(5)
        line = indent + " ".join(rng.choice(WORDS) + rng.choice(["", "(", ")", ";", "_%d" % rng.randrange(999)])
                                 for _ in range(rng.randrange(3, 12)))
        lines.append(line)
        total += len(line) + 1
    return ("\n".join(lines) + "\n").encode()


def size_of(rng):
    if rng.random() < 0.53:
        return rng.randrange(100, 4096)
    return min(int(rng.lognormvariate(9.7, 0.95)) + 4096, 900_000)


def main():
    directory, files = sys.argv[1], int(sys.argv[2])
    rng = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    text = pool(rng, 8 << 20)
    total = 0
    for number in range(files):
        below = os.path.join(directory, "m%03d" % (number // 1000), "d%02d" % (number // 20 % 50))
        if number % 20 == 0:
            os.makedirs(below, exist_ok=True)
        size = size_of(rng)
        start = rng.randrange(len(text) - size)
        # A line of its own makes every file's content unique, as in a real tree.
        body = b"// file %d of seed %d\n" % (number, 1) + text[start:start + size]
        total += len(body)
        with open(os.path.join(below, "f%02d.rs" % (number % 20)), "wb") as out:
            out.write(body)
    print("%d files, %d bytes" % (files, total))


if __name__ == "__main__":
    main()
