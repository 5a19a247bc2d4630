"""Large files against git-lfs, on the same real LFS server (giftless, which `tests/run` installs) on 127.0.0.1:
`run.py --only large`.

Four files of 256 MiB of random bytes are committed and pushed by `once` and by `git add`, `commit` and `push` with
git-lfs, in turns, the server emptied between. Then the same without anything new. The floor is one pass of SHA-256 by
OpenSSL over the same bytes, and one copy of them.
"""

import os
import random
import shutil
import subprocess
import sys

import servers

FILES = 4
MIB = 256
SETTINGS = """LEGACY_ENDPOINTS: false
AUTH_PROVIDERS:
  - giftless.auth.allow_anon:read_write
PRE_AUTHORIZED_ACTION_PROVIDER:
  options:
    private_key: a-key-for-this-test-of-32-bytes-or-more
TRANSFER_ADAPTERS:
  basic:
    options:
      storage_options:
        path: %s
"""


class Server:
    def __init__(self, tools, base):
        self.base, self.port = os.path.join(base, "giftless"), servers.free_port()
        shutil.rmtree(self.base, ignore_errors=True)
        os.makedirs(os.path.join(self.base, "storage"))
        settings = os.path.join(self.base, "settings.yaml")
        with open(settings, "w") as file:
            file.write(SETTINGS % os.path.join(self.base, "storage"))
        program = os.path.join(tools, "giftless", "bin", "waitress-serve")
        if not os.path.exists(program):
            sys.exit("giftless is missing: tests/run installs it")
        self.child = subprocess.Popen(
            [program, "--listen=127.0.0.1:%d" % self.port, "giftless.wsgi_entrypoint:app"], cwd=self.base,
            env=dict(os.environ, GIFTLESS_CONFIG_FILE=settings), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        servers.wait_for(self.port)

    def url(self):
        return "http://127.0.0.1:%d/org/repo.git/info/lfs" % self.port

    def clear(self):
        shutil.rmtree(os.path.join(self.base, "storage"))
        os.makedirs(os.path.join(self.base, "storage"))

    def bytes(self):
        sizes = [os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(self.base + "/storage") for name in names]
        return sum(sizes)

    def stop(self):
        self.child.terminate()
        self.child.wait()


def corpus(bench):
    root = bench.path("large-corpus")
    if not os.path.isdir(root):
        os.makedirs(root)
        generator = random.Random(2026)
        for number in range(FILES):
            with open(os.path.join(root, "film-%d.bin" % number), "wb") as file:
                for _ in range(MIB):
                    file.write(generator.randbytes(1 << 20))
    return root


def ours(bench, measure, root, server, empty=None):
    with open(bench.path("large.yaml"), "w") as file:
        file.write("""version: 1
state_dir: %s
instance: bench
repositories:
  - name: films
    roots: [{name: films, path: %s}]
    lfs: {threshold: 1MiB}
    remotes: [{name: here, url: %s, lfs_url: "%s"}]
""" % (bench.path("large-state"), empty or root, bench.path("large-ours.git"), server.url()))
    environment = dict(os.environ, BACKUPBOT_LOG_LEVEL="error")
    return measure([bench.binary, "once", "--config", bench.path("large.yaml")], env=environment)


def peer(bench, measure, root, server):
    environment = dict(os.environ, GIT_DIR=bench.path("large-peer.git"), GIT_WORK_TREE=root,
                       GIT_CONFIG_GLOBAL=bench.path("large.gitconfig"), GIT_CONFIG_NOSYSTEM="1")
    identity = ["-c", "user.name=b", "-c", "user.email=b@b"]
    parts = [
        measure(["git", "add", "-A"], cwd=root, env=environment),
        measure(["git", *identity, "commit", "-q", "-m", "x"], cwd=root, env=environment),
        measure(["git", "push", "-q", bench.path("large-theirs.git"), "HEAD:refs/heads/main"], cwd=root, env=environment),
    ]
    return sum(p[0] for p in parts), sum(p[1] for p in parts), max(p[2] for p in parts)


def prepare_peer(bench, root, server):
    bench.clear("large-peer.git", "large-theirs.git")
    open(bench.path("large.gitconfig"), "w").close()
    environment = dict(os.environ, GIT_CONFIG_GLOBAL=bench.path("large.gitconfig"), GIT_CONFIG_NOSYSTEM="1")
    run = lambda *arguments: subprocess.run(arguments, check=True, env=environment, stdout=subprocess.DEVNULL)
    run("git", "lfs", "install", "--skip-repo")
    run("git", "init", "-q", "-b", "main", "--separate-git-dir", bench.path("large-peer.git"), bench.path("large-unused"))
    run("git", "init", "-q", "--bare", "-b", "main", bench.path("large-theirs.git"))
    at = ["git", "--git-dir", bench.path("large-peer.git")]
    run(*at, "config", "lfs.url", server.url())
    # What `git lfs install` would put into a repository of its own making.
    hook = bench.path("large-peer.git") + "/hooks/pre-push"
    os.makedirs(os.path.dirname(hook), exist_ok=True)
    with open(hook, "w") as file:
        file.write("#!/bin/sh\nexec git lfs pre-push \"$@\"\n")
    os.chmod(hook, 0o755)
    info = bench.path("large-peer.git") + "/info"
    os.makedirs(info, exist_ok=True)
    with open(info + "/attributes", "w") as file:
        file.write("*.bin filter=lfs diff=lfs merge=lfs -text\n")
    bench.clear("large-unused")


def floor(bench, measure, root):
    names = [os.path.join(root, name) for name in sorted(os.listdir(root)) if name.endswith(".bin")]
    hashed = measure(["openssl", "dgst", "-sha256", *names])
    bench.clear("large-copy")
    os.makedirs(bench.path("large-copy"))
    copied = measure(["cp", "--reflink=never", *names, bench.path("large-copy")])
    bench.clear("large-copy")
    return hashed, copied


def large(bench, measure, medians, tools):
    root, server = corpus(bench), Server(tools, bench.base)
    a, b, hashes, copies = [], [], [], []
    try:
        for _ in range(bench.rounds):
            bench.clear("large-state", "large-ours.git")
            server.clear()
            a.append(ours(bench, measure, root, server))
            assert server.bytes() == FILES * MIB << 20, "not all of it is there"
            prepare_peer(bench, root, server)
            server.clear()
            b.append(peer(bench, measure, root, server))
            assert server.bytes() == FILES * MIB << 20, "git-lfs did not push all of it"
            hashed, copied = floor(bench, measure, root)
            hashes.append(hashed)
            copies.append(copied)
        empty = bench.path("large-empty")
        os.makedirs(empty, exist_ok=True)
        bench.clear("large-state", "large-ours.git")
        idle = ours(bench, measure, root, server, empty)
    finally:
        server.stop()
    bench.rows.append(("commit and push 4 x 256 MiB; git add, commit, push with git-lfs", medians(a), medians(b)))
    least = medians(hashes)[1] + medians(copies)[1]
    mine = medians(a)[1]
    print("floor per GiB: SHA-256 %.2f s + copy %.2f s = %.2f s of CPU; ours %.2f s, %.2f times that; peak %.0f MB, with nothing to do %.0f MB"
          % (medians(hashes)[1], medians(copies)[1], least, mine, mine / least, medians(a)[2], idle[2]))
