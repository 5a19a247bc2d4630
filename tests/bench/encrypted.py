"""The same files encrypted as git-crypt does and in clear text, in turns: `run.py --only encrypted`.

The first backup and the restore of everything, then one file of 3 GiB, whose memory is what counts: it is read twice, and
its ciphertext goes among the large contents. What comes back is compared.
"""

import os
import shutil
import subprocess
import sys

GIB = 3


def large_file(path, gib):
    """Bytes that cannot be compressed."""
    with open(path, "wb") as out:
        for _ in range(gib * 1024):
            out.write(os.urandom(1 << 20))


def encrypted(bench, measure):
    key = bench.path("bench.key")
    if os.path.exists(key):
        os.remove(key)

    def configured(encrypts, tree, lfs=""):
        path = bench.path("encrypted.yaml")
        more = "    encryption: {method: git-crypt, key_file: %s}\n" % key if encrypts else ""
        with open(path, "w") as out:
            out.write("version: 1\nstate_dir: %s\nrepositories:\n  - name: bench\n    roots: [{name: tree, path: %s}]\n%s%s"
                      % (bench.path("state-" + ("sealed" if encrypts else "clear")), tree, lfs, more))
        if encrypts and not os.path.exists(key):
            subprocess.run([bench.binary, "keys", "create", "--config", path], check=True, stdout=subprocess.DEVNULL)
        return path

    def once(encrypts, tree, lfs=""):
        bench.clear("state-sealed" if encrypts else "state-clear")
        config = configured(encrypts, tree, lfs)
        return measure([bench.binary, "once", "--config", config], env=dict(os.environ, BACKUPBOT_LOG_LEVEL="error"))

    def restore(encrypts, tree, lfs=""):
        bench.clear("restored")
        config = configured(encrypts, tree, lfs)
        return measure([bench.binary, "restore", "--config", config, "--to", bench.path("restored")])

    def compare(tree):
        subprocess.run(["diff", "-r", tree, bench.path("restored/tree")], check=True)

    corpus = bench.corpus
    bench.pair("first backup of %d files, encrypted; the same in clear text" % bench.files,
               lambda _: once(True, corpus), lambda _: once(False, corpus))
    bench.pair("restore of them, encrypted; the same in clear text",
               lambda _: restore(True, corpus), lambda _: restore(False, corpus))
    restore(True, corpus)
    compare(corpus)
    tree = bench.path("large-tree")
    os.makedirs(tree, exist_ok=True)
    if shutil.disk_usage(bench.base).free < (5 * GIB) << 30:
        print("no room for a file of %d GiB" % GIB, file=sys.stderr)
        return
    large_file(os.path.join(tree, "large"), GIB)
    lfs = "    lfs: {threshold: 10MiB}\n"
    for title, work in [("one file of %d GiB" % GIB, once), ("its restore", restore)]:
        bench.report("%s, encrypted; in clear text" % title, [work(True, tree, lfs)], [work(False, tree, lfs)])
    restore(True, tree, lfs)
    compare(tree)
    bench.clear("restored", "large-tree", "state-sealed", "state-clear")
