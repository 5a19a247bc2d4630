"""The same files encrypted and in clear text, in turns: `run.py --only encrypted` as git-crypt does, `run.py --only gpg` as
OpenPGP messages to one person with a key on Curve25519.

The first backup and the restore of everything, then one large file, whose memory is what counts: its ciphertext goes among the
large contents. git-crypt takes less than 4 GiB a file. What comes back is compared.
"""

import os
import shutil
import subprocess
import sys


def large_file(path, gib):
    """Bytes that cannot be compressed."""
    with open(path, "wb") as out:
        for _ in range(gib * 1024):
            out.write(os.urandom(1 << 20))


def encrypted(bench, measure):
    key = bench.path("bench.key")
    if os.path.exists(key):
        os.remove(key)
    compare_forms(bench, measure, "{method: git-crypt, key_file: %s}" % key, ["keys", "create"], [], 3)


def gpg(bench, measure):
    home = bench.path("gnupg")
    shutil.rmtree(home, ignore_errors=True)
    os.makedirs(home, 0o700)

    def run(*arguments):
        command = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        return subprocess.run(command + list(arguments), check=True, stdout=subprocess.PIPE).stdout

    run("--quick-gen-key", "bench <bench@example.org>", "future-default", "default", "never")
    for name, command in [("public.asc", "--export"), ("private.asc", "--export-secret-keys")]:
        with open(os.open(bench.path(name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out:
            out.write(run("--armor", command))
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)
    compare_forms(bench, measure, "{method: gpg, recipients: [%s]}" % bench.path("public.asc"), None,
                  ["--key-file", bench.path("private.asc")], 5)


def compare_forms(bench, measure, section, prepare, unlock, gib):
    is_prepared = []

    def configured(encrypts, tree, lfs=""):
        path = bench.path("encrypted.yaml")
        more = "    encryption: %s\n" % section if encrypts else ""
        with open(path, "w") as out:
            out.write("version: 1\nstate_dir: %s\nrepositories:\n  - name: bench\n    roots: [{name: tree, path: %s}]\n%s%s"
                      % (bench.path("state-" + ("sealed" if encrypts else "clear")), tree, lfs, more))
        if encrypts and prepare and not is_prepared:
            subprocess.run([bench.binary] + prepare + ["--config", path], check=True, stdout=subprocess.DEVNULL)
            is_prepared.append(True)
        return path

    def once(encrypts, tree, lfs=""):
        bench.clear("state-sealed" if encrypts else "state-clear")
        config = configured(encrypts, tree, lfs)
        return measure([bench.binary, "once", "--config", config], env=dict(os.environ, BACKUPBOT_LOG_LEVEL="error"))

    def restore(encrypts, tree, lfs=""):
        bench.clear("restored")
        config = configured(encrypts, tree, lfs)
        keys = unlock if encrypts else []
        return measure([bench.binary, "restore", "--config", config, "--to", bench.path("restored")] + keys)

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
    if shutil.disk_usage(bench.base).free < (4 * gib) << 30:
        print("no room for a file of %d GiB" % gib, file=sys.stderr)
        return
    large_file(os.path.join(tree, "large"), gib)
    lfs = "    lfs: {threshold: 10MiB, max_object: 10GiB}\n"
    for title, work in [("one file of %d GiB" % gib, once), ("its restore", restore)]:
        bench.report("%s, encrypted; in clear text" % title, [work(True, tree, lfs)], [work(False, tree, lfs)])
    bench.clear("state-clear")
    restore(True, tree, lfs)
    compare(tree)
    bench.clear("restored", "large-tree", "state-sealed")
