#!/usr/bin/env python3
"""Measures the release build against its peers, paired in one run: run.py [--files N] [--rounds N] [--at DIRECTORY].

Makes a seeded corpus (see corpus.py), then runs ours and the peer in turns and prints medians of wall time, CPU
time and peak memory, and the ratio. Machines are noisy: trust CPU time and ratios, not single times.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(os.path.dirname(HERE))


def measure(command, cwd=None, env=None, accept=(0,)):
    """Wall seconds, CPU seconds, peak MB of one command with its children."""
    started = time.monotonic()
    child = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    complaint = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code not in accept:
        sys.exit("%s ended with %d: %s" % (command, code, complaint.decode(errors="replace")[-2000:]))
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def medians(samples):
    return [statistics.median(column) for column in zip(*samples)]


class Bench:
    def __init__(self, binary, base, files, rounds):
        self.binary, self.base, self.files, self.rounds = binary, base, files, rounds
        self.corpus = os.path.join(base, "corpus-%d" % files)
        self.rows = []
        if not os.path.isdir(self.corpus):
            subprocess.run([sys.executable, os.path.join(HERE, "corpus.py"), self.corpus, str(files)], check=True)

    def path(self, name):
        return os.path.join(self.base, name)

    def clear(self, *names):
        for name in names:
            shutil.rmtree(self.path(name), ignore_errors=True)

    def ours(self, *more):
        environment = dict(os.environ, BACKUPBOT_LOG_LEVEL="error")
        command = [self.binary, "once", "--state-dir", self.path("state"), "--watch", self.corpus, *more]
        return measure(command, env=environment)

    def git(self, *arguments):
        environment = dict(os.environ, GIT_DIR=self.path("peer.git"), GIT_WORK_TREE=self.corpus)
        return measure(["git", "-c", "user.name=b", "-c", "user.email=b@b", "-c", "gc.auto=0", *arguments], env=environment)

    def git_commit(self):
        parts = [self.git("add", "-A"), self.git("commit", "-q", "-m", "x")]
        return sum(p[0] for p in parts), sum(p[1] for p in parts), max(p[2] for p in parts)

    def change(self, count, mark):
        names = []
        for directory, _, files in sorted(os.walk(self.corpus)):
            names.extend(os.path.join(directory, name) for name in sorted(files))
        for name in names[:: max(1, len(names) // count)][:count]:
            with open(name, "a") as out:
                out.write("// %s\n" % mark)

    def pair(self, title, ours, peer):
        mine, theirs = [], []
        for number in range(self.rounds):
            mine.append(ours(number))
            theirs.append(peer(number))
        a, b = medians(mine), medians(theirs)
        self.rows.append((title, a, b))
        print("%-44s ours %6.2f s %6.2f cpu %5.0f MB | peer %6.2f s %6.2f cpu %5.0f MB | wall %.2f cpu %.2f"
              % (title, *a, *b, a[0] / b[0], a[1] / b[1]), flush=True)

    def run(self):
        def first_ours(_):
            self.clear("state")
            return self.ours()

        def first_git(_):
            self.clear("peer.git")
            subprocess.run(["git", "init", "-q", "--bare", self.path("peer.git")], check=True)
            return self.git_commit()

        self.pair("first backup, %d files, to the commit" % self.files, first_ours, first_git)
        self.pair("rescan, nothing changed", lambda _: self.ours(), lambda _: self.git("status", "-s"))

        def changed_ours(number):
            self.change(1000, "ours %d %f" % (number, time.time()))
            return self.ours()

        self.pair("1000 changed files, rescan and commit", changed_ours, lambda _: self.git_commit())

        def push_ours(number):
            # Another directory each time: one that was complete and is gone is not made anew.
            self.clear(*("remote-%d.git" % former for former in range(number)))
            return self.ours("--remote", self.path("remote-%d.git" % number))

        def push_git(_):
            self.clear("peer-remote.git")
            subprocess.run(["git", "init", "-q", "--bare", self.path("peer-remote.git")], check=True)
            return self.git("push", "-q", self.path("peer-remote.git"), "HEAD:refs/heads/main")

        self.pair("rescan and first push to a local repository", push_ours, push_git)

    def table(self):
        print("\n| work | ours: wall, CPU, peak | peer: wall, CPU, peak | wall ratio | CPU ratio |\n|---|---|---|---|---|")
        for title, a, b in self.rows:
            print("| %s | %.2f s, %.2f s, %.0f MB | %.2f s, %.2f s, %.0f MB | %.2f | %.2f |"
                  % (title, *a, *b, a[0] / b[0], a[1] / b[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at", default=os.path.join(PROJECT, "target", "bench"))
    parser.add_argument("--binary")
    arguments = parser.parse_args()
    binary = arguments.binary
    if not binary:
        built = subprocess.run(
            ["cargo", "build", "--release", "--locked", "--message-format=json"], cwd=PROJECT, check=True,
            stdout=subprocess.PIPE)
        messages = [json.loads(line) for line in built.stdout.splitlines()]
        binary = next(m["executable"] for m in messages if m.get("executable"))
    os.makedirs(arguments.at, exist_ok=True)
    bench = Bench(binary, arguments.at, arguments.files, arguments.rounds)
    bench.run()
    bench.table()


if __name__ == "__main__":
    main()
