#!/usr/bin/env python3
"""Measures the release build against its peers, paired in one run.

    run.py [--files N] [--rounds N] [--at DIRECTORY] [--only WORD] [--minutes N] [--binary FILE]

Makes a seeded corpus (corpus.py), then runs ours and the peer in turns and prints the medians of wall time, CPU time
and peak memory, and their ratios. The peers are git, and restic and inotifywait where they are installed. Machines are
noisy: trust CPU time and ratios, not single times.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time

import api
import encrypted
import large
import servers

HERE = os.path.dirname(os.path.abspath(__file__))
PROJECT = os.path.dirname(os.path.dirname(HERE))
TICKS = os.sysconf("SC_CLK_TCK")


def measure(command, cwd=None, env=None):
    """Wall seconds, CPU seconds, peak MB of one command with its children."""
    started = time.monotonic()
    child = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    complaint = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        sys.exit("%s ended with %d: %s" % (command, code, complaint.decode(errors="replace")[-2000:]))
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def cpu_of(pid):
    """CPU seconds of a process so far."""
    with open("/proc/%d/stat" % pid) as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_of(pid, line):
    with open("/proc/%d/status" % pid) as file:
        return next(int(row.split()[1]) / 1024 for row in file if row.startswith(line))


def medians(samples):
    return [statistics.median(column) for column in zip(*samples)]


class Daemon:
    """`backupbot run`, and its log."""

    def __init__(self, bench, *more):
        self.bench, self.log_path = bench, bench.path("daemon.log")
        self.log = open(self.log_path, "w+")
        command = [bench.binary, "run", "--state-dir", bench.path("state"), *more]
        self.child = subprocess.Popen(command, stderr=self.log, stdout=subprocess.DEVNULL)
        self.flush()

    def flush(self, *more):
        """Waits until everything is at every remote."""
        command = [self.bench.binary, "flush", "--state-dir", self.bench.path("state"), "--wait", "--timeout", "3600s", *more]
        for _ in range(100):
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            if done.returncode == 0:
                return
            time.sleep(0.1)
        sys.exit("flush: %s" % done.stderr.decode())

    def said(self, message):
        """The log's records with this message, oldest first."""
        with open(self.log_path) as file:
            records = [json.loads(line) for line in file if line.startswith("{")]
        return [record for record in records if record["msg"] == message]

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait()
        self.log.close()


class Bench:
    def __init__(self, binary, base, files, rounds):
        self.binary, self.base, self.files, self.rounds = binary, base, files, rounds
        self.corpus = os.path.join(base, "corpus-%d" % files)
        self.rows = []
        if not os.path.isdir(self.corpus):
            subprocess.run([sys.executable, os.path.join(HERE, "corpus.py"), self.corpus, str(files)], check=True)
        # Whatever was written to it by an earlier run is read once, so that no run pays for the others' cold cache.
        subprocess.run(["tar", "-cf", "/dev/null", self.corpus], check=True, stderr=subprocess.DEVNULL)

    def path(self, name):
        return os.path.join(self.base, name)

    def clear(self, *names):
        for name in names:
            shutil.rmtree(self.path(name), ignore_errors=True)

    def ours(self, *more):
        environment = dict(os.environ, BACKUPBOT_LOG_LEVEL="error")
        command = [self.binary, "once", "--state-dir", self.path("state"), "--watch", self.corpus, *more]
        return measure(command, env=environment)

    def git(self, *arguments, tree=None):
        environment = dict(os.environ, GIT_DIR=self.path("peer.git"), GIT_WORK_TREE=tree or self.corpus)
        return measure(["git", "-c", "user.name=b", "-c", "user.email=b@b", "-c", "gc.auto=0", *arguments], env=environment)

    def git_commit(self, tree=None):
        parts = [self.git("add", "-A", tree=tree), self.git("commit", "-q", "-m", "x", tree=tree)]
        return sum(p[0] for p in parts), sum(p[1] for p in parts), max(p[2] for p in parts)

    def new_git(self):
        self.clear("peer.git")
        subprocess.run(["git", "init", "-q", "--bare", self.path("peer.git")], check=True)

    def restic(self, *arguments):
        environment = dict(os.environ, RESTIC_PASSWORD="x", RESTIC_REPOSITORY=self.path("restic"))
        return measure(["restic", "-q", "--no-cache", *arguments], env=environment)

    def change(self, count, mark):
        names = []
        for directory, _, files in sorted(os.walk(self.corpus)):
            names.extend(os.path.join(directory, name) for name in sorted(files))
        for name in names[:: max(1, len(names) // count)][:count]:
            with open(name, "a") as out:
                out.write("// %s\n" % mark)

    def report(self, title, mine, theirs=None):
        """Rows of (wall, CPU, MB); `None` where there is no such figure."""
        a = medians(mine)
        b = medians(theirs) if theirs else None
        self.rows.append((title, a, b))
        print(self.row(title, a, b), flush=True)

    def pair(self, title, ours, peer):
        mine, theirs = [], []
        for number in range(self.rounds):
            mine.append(ours(number))
            theirs.append(peer(number))
        self.report(title, mine, theirs)

    def first(self):
        def ours(_):
            self.clear("state")
            return self.ours()

        def git(_):
            self.new_git()
            return self.git_commit()

        def restic(_):
            self.clear("restic")
            self.restic("init")
            return self.restic("backup", self.corpus)

        self.pair("first backup of %d files, to the commit; git add, git commit" % self.files, ours, git)
        if shutil.which("restic"):
            self.pair("the same; restic backup", ours, restic)

    def need_first(self):
        if not os.path.isdir(self.path("state")):
            self.ours()
        if not os.path.isdir(self.path("peer.git")):
            self.new_git()
            self.git_commit()

    def rescan(self):
        self.need_first()
        self.pair("`once` with nothing changed; git status", lambda _: self.ours(), lambda _: self.git("status", "-s"))
        daemon = Daemon(self, "--watch", self.corpus)
        mine, theirs = [], []
        for _ in range(self.rounds):
            before, count = cpu_of(daemon.child.pid), len(daemon.said("compared"))
            daemon.flush("--rescan")
            cpu = cpu_of(daemon.child.pid) - before
            took = daemon.said("compared")[count:][-1]["took_ms"] / 1000
            mine.append((took, cpu, memory_of(daemon.child.pid, "VmHWM")))
            theirs.append(self.git("status", "-s"))
        daemon.stop()
        self.report("rescan by the daemon, nothing changed; git status", mine, theirs)
        if shutil.which("restic") and os.path.isdir(self.path("restic")):
            self.pair("`once` with nothing changed; restic backup", lambda _: self.ours(),
                      lambda _: self.restic("backup", self.corpus))

    def changed(self):
        self.need_first()
        daemon = Daemon(self, "--watch", self.corpus)
        mine, theirs = [], []
        for number in range(self.rounds):
            self.change(1000, "%d %f" % (number, time.time()))
            before, count = cpu_of(daemon.child.pid), len(daemon.said("committed"))
            daemon.flush()
            cpu = cpu_of(daemon.child.pid) - before
            took = sum(record["took_ms"] for record in daemon.said("committed")[count:]) / 1000
            mine.append((took, cpu, memory_of(daemon.child.pid, "VmHWM")))
            theirs.append(self.git_commit())
        daemon.stop()
        self.report("1000 changed files, batch taken to branch moved; git add, git commit", mine, theirs)

    def push(self):
        self.need_first()

        def ours(number):
            # Another directory each time: one that was complete and is gone is not made anew.
            self.clear(*("remote-%d.git" % former for former in range(number)))
            return self.ours("--remote", self.path("remote-%d.git" % number))

        def git(_):
            self.clear("peer-remote.git")
            subprocess.run(["git", "init", "-q", "--bare", self.path("peer-remote.git")], check=True)
            return self.git("push", "-q", self.path("peer-remote.git"), "HEAD:refs/heads/main")

        self.pair("`once` with the first push to a local repository; git push", ours, git)

    def network(self, server):
        """The first push over a network, then that of one small commit; the peer may use its pack as it is."""
        self.need_first()
        name = os.path.basename(self.corpus)
        subprocess.run(["git", "--git-dir", self.path("peer.git"), "repack", "-adq"], check=True)
        served = server(self.base)
        kind = type(served).__name__
        remotes = [self.path("served-%s-%d.git" % (kind, number)) for number in range(self.rounds)]

        def made(path):
            shutil.rmtree(path, ignore_errors=True)
            subprocess.run(["git", "init", "-q", "--bare", path], check=True)
            subprocess.run(["git", "--git-dir", path, "config", "http.receivepack", "true"], check=True)

        def configured(remote):
            path = self.path("served.yaml")
            with open(path, "w") as out:
                out.write("version: 1\nstate_dir: %s\nrepositories:\n  - name: %s\n    roots: [{path: %s}]\n"
                          "    remotes: [{name: %s, url: '%s', credentials: %s}]\n"
                          % (self.path("state"), name, self.corpus, os.path.basename(remote)[:-4].lower(),
                             served.url(remote), served.credentials()))
            environment = dict(os.environ, BACKUPBOT_LOG_LEVEL="error")
            return measure([self.binary, "once", "--config", path], env=environment)

        def pushed(remote):
            environment = dict(os.environ, GIT_DIR=self.path("peer.git"), **served.environment())
            return measure(["git", "push", "-q", served.git_url(remote), "HEAD:refs/heads/main"], env=environment)

        def ours(number):
            made(remotes[number])
            return configured(remotes[number])

        def peer(_):
            made(self.path("peer-served.git"))
            return pushed(self.path("peer-served.git"))

        try:
            self.pair("%s: `once` with the first push; git push with a pack to use again" % kind, ours, peer)

            self.fetches(kind, served, remotes[-1])

            def nothing(_):
                return configured(remotes[-1])

            def ours_again(number):
                self.change(1, "again %d" % number)
                return configured(remotes[-1])

            def peer_again(number):
                self.git("add", "-A")
                self.git("commit", "-q", "-m", "x")
                return pushed(self.path("peer-served.git"))

            self.pair("%s: `once` with nothing to do; nothing" % kind, nothing, lambda _: (0.001, 0.001, 1))
            self.pair("%s: `once` with one small commit and its push; git push of one" % kind, ours_again, peer_again)
            self.small_pushes(kind, peer_again)
        finally:
            served.stop()

    def fetches(self, kind, served, remote):
        """Everything back from one repository over one server, with its checkout."""
        def ours(_):
            self.clear("restored")
            return measure([self.binary, "restore", "--from", served.url(remote), *served.flags(),
                            "--state-dir", self.path("nowhere"), "--to", self.path("restored")])

        def git(_):
            self.clear("cloned")
            environment = dict(os.environ, **served.environment())
            return measure(["git", "clone", "-q", served.git_url(remote), self.path("cloned")], env=environment)

        self.pair("%s: restore of %d files from the remote; git clone" % (kind, self.files), ours, git)
        self.clear("restored", "cloned")

    def fetch(self):
        """Only that, from a repository that was filled without a network."""
        self.need_first()
        remote = self.path("filled.git")
        self.clear("filled.git")
        self.ours("--remote", remote)
        for server in (servers.Sshd, servers.Web):
            served = server(self.base)
            try:
                self.fetches(type(served).__name__, served, remote)
            finally:
                served.stop()

    def small_pushes(self, kind, peer):
        """One small commit after the other by the daemon: the push alone, and whether it grows with the history."""
        daemon = Daemon(self, "--config", self.path("served.yaml"))
        mine, theirs = [], []
        for number in range(max(5, self.rounds)):
            self.change(1, "daemon %d" % number)
            before, count = cpu_of(daemon.child.pid), len(daemon.said("pushed"))
            daemon.flush()
            cpu = cpu_of(daemon.child.pid) - before
            mine.append((daemon.said("pushed")[count]["took_ms"] / 1000, cpu, memory_of(daemon.child.pid, "VmHWM")))
            theirs.append(peer(number))
        self.report("%s: push of one small commit by the daemon; git push of one" % kind, mine, theirs)
        for number in range(100):
            with open(os.path.join(self.corpus, "grows"), "w") as out:
                out.write("%d\n" % number)
            daemon.flush()
        took = [record["took_ms"] for record in daemon.said("pushed")]
        os.remove(os.path.join(self.corpus, "grows"))
        print("%s: 100 small commits, a push took %d ms for the first 20 of them and %d ms for the last 20 (medians)"
              % (kind, statistics.median(took[-100:-80]), statistics.median(took[-20:])), flush=True)
        daemon.stop()

    def ssh(self):
        self.network(servers.Sshd)

    def http(self):
        self.network(servers.Web)

    def look(self):
        """Looking into history; the peer is git on the same repository, which knows no metadata."""
        self.need_first()
        name = os.path.basename(self.corpus)
        bare = os.path.join(self.path("state"), "repos", name + ".git")
        before = subprocess.run(["git", "--git-dir", bare, "rev-parse", "main"], check=True,
                                stdout=subprocess.PIPE).stdout.decode().strip()
        self.change(1000, "look %d" % time.time())
        self.ours()
        widest = max(os.walk(self.corpus), key=lambda entry: len(entry[2]))
        inside = os.path.relpath(widest[0], self.corpus)
        path = os.path.join(name, "" if inside == "." else inside)
        some_file = os.path.join(path, sorted(widest[2])[0])

        def ours(*arguments):
            return lambda _: measure([self.binary, *arguments, "--state-dir", self.path("state")])

        def git(*arguments):
            return lambda _: measure(["git", "--git-dir", bare, *arguments])

        count = len(widest[2])
        self.pair("`ls` of a directory with %d files; git ls-tree -l" % count, ours("ls", path), git("ls-tree", "-l", "main:" + path))
        self.pair("`ls -R` of everything; git ls-tree -rl", ours("ls", "-R"), git("ls-tree", "-rl", "main", name))
        self.pair("`diff` of two snapshots, 1000 files changed; git diff --name-status",
                  ours("diff", before, "latest"), git("diff", "--name-status", "--no-renames", before, "main", "--", name))
        self.pair("`cat` of a small file; git cat-file", ours("cat", some_file), git("cat-file", "blob", "main:" + some_file))

        # What is measured has to be left as the others expect it.
        shutil.copytree(self.path("state"), self.path("state-look"), dirs_exist_ok=True)
        self.many_commits(os.path.join(self.path("state-look"), "repos", name + ".git"), some_file, 10_000)
        bare = os.path.join(self.path("state-look"), "repos", name + ".git")

        def long(*arguments):
            return lambda _: measure([self.binary, *arguments, "--state-dir", self.path("state-look")])

        self.pair("`snapshots`, 10,000 of them; git log --first-parent", long("snapshots"), git("log", "--first-parent", "main"))
        self.pair("`snapshots --path` of one file; git log -- FILE", long("snapshots", "--path", some_file), git("log", "--first-parent", "main", "--", some_file))
        self.pair("`ls --at latest~9999`; git rev-parse", long("ls", "--at", "latest~9999"), git("rev-parse", "main~9999"))
        self.clear("state-look")

    @staticmethod
    def many_commits(bare, path, count):
        """Puts so many commits in our form on top of the branch, each with a change beside `path`."""
        git = ["git", "--git-dir", bare]
        when = int(subprocess.run([*git, "log", "-1", "--format=%ct", "main"], check=True, stdout=subprocess.PIPE).stdout)
        importer = subprocess.Popen([*git, "fast-import", "--quiet"], stdin=subprocess.PIPE)
        for number in range(count):
            message = ("backup x: 0 added, 1 changed, 0 deleted\n\nBackupBot-Instance: bench\nBackupBot-Batch: %d\n"
                       "BackupBot-Bytes: 1\nBackupBot-Format: 1\n" % (number + 100))
            lines = ["commit refs/heads/main", "committer b <b@b> %d +0000" % (when + 30 * number),
                     "data %d" % len(message), message]
            if number == 0:
                lines.append("from refs/heads/main^0")
            content = "%d" % number
            lines += ["M 100644 inline %s-%d" % (path, number % 50), "data %d" % len(content), content, ""]
            importer.stdin.write("\n".join(lines).encode())
        importer.stdin.close()
        if importer.wait() != 0:
            sys.exit("git fast-import failed")

    def idle(self):
        self.need_first()
        daemon = Daemon(self, "--watch", self.corpus)
        time.sleep(5)
        before, started = cpu_of(daemon.child.pid), time.monotonic()
        time.sleep(60)
        share = (cpu_of(daemon.child.pid) - before) / (time.monotonic() - started)
        print("watching %d files, idle for a minute: %.3f %% of a core, %.0f MB now, %.0f MB at most (start and "
              "comparison)" % (self.files, share * 100, memory_of(daemon.child.pid, "VmRSS"),
                               memory_of(daemon.child.pid, "VmHWM")), flush=True)
        daemon.stop()

    def burst(self):
        """Files made as fast as possible until all are at the remote; the peer commits and pushes whenever inotifywait
        tells of a change, as gitwatch does."""
        def make(tree):
            for number in range(self.files):
                directory = "%s/d%d" % (tree, number // 100)
                if number % 100 == 0:
                    os.makedirs(directory)
                with open("%s/f%d" % (directory, number), "w") as out:
                    out.write("content %d\n" % number)

        def ours(_):
            self.clear("state", "burst", "burst.git")
            os.makedirs(self.path("burst"))
            daemon = Daemon(self, "--watch", self.path("burst"), "--remote", self.path("burst.git"))
            before, started = cpu_of(daemon.child.pid), time.monotonic()
            make(self.path("burst"))
            daemon.flush()
            taken = time.monotonic() - started, cpu_of(daemon.child.pid) - before, memory_of(daemon.child.pid, "VmHWM")
            daemon.stop()
            self.count(self.path("burst.git"))
            return taken

        def peer(_):
            self.clear("burst", "burst-peer.git")
            os.makedirs(self.path("burst"))
            self.new_git()
            subprocess.run(["git", "init", "-q", "--bare", self.path("burst-peer.git")], check=True)
            watcher = subprocess.Popen(["inotifywait", "-qmr", "-e", "close_write", self.path("burst")],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            started, parts = time.monotonic(), []
            maker = os.fork()
            if maker == 0:
                make(self.path("burst"))
                os._exit(0)
            done = False
            while True:
                # It is given more than gitwatch has: no pause, and the knowledge of when there is nothing left.
                last = done
                parts.append(self.git("add", "-A", tree=self.path("burst")))
                if subprocess.run(["git", "--git-dir", self.path("peer.git"), "diff", "--cached", "--quiet"],
                                  stderr=subprocess.DEVNULL).returncode:
                    parts.append(self.git("commit", "-q", "-m", "x", tree=self.path("burst")))
                    parts.append(self.git("push", "-q", self.path("burst-peer.git"), "HEAD:refs/heads/main"))
                if last:
                    break
                done = os.waitpid(maker, os.WNOHANG)[0] == maker
            taken = time.monotonic() - started
            watcher.terminate()
            watcher.wait()
            self.count(self.path("burst-peer.git"))
            return taken, sum(p[1] for p in parts), max(p[2] for p in parts)

        if not shutil.which("inotifywait"):
            print("burst: not measured, inotifywait (inotify-tools) is not installed")
            return
        self.pair("burst of %d small files until all are at the remote; gitwatch's way" % self.files, ours, peer)
        self.clear("state", "peer.git")

    def restore(self):
        """Everything back from the local repositories: ours, git clone from its packed own, restic restore."""
        self.need_first()

        def ours(_):
            self.clear("restored")
            return measure([self.binary, "restore", "--state-dir", self.path("state"), "--to", self.path("restored")])

        def git(_):
            self.clear("cloned")
            return measure(["git", "clone", "-q", self.path("peer.git"), self.path("cloned")])

        def git_of_ours(_):
            self.clear("cloned")
            (name,) = os.listdir(self.path("state/repos"))
            source = "file://" + self.path("state/repos/" + name)
            return measure(["git", "clone", "-q", source, self.path("cloned")])

        def restic(_):
            self.clear("restic-restored")
            return self.restic("restore", "latest", "--target", self.path("restic-restored"))

        self.pair("restore of %d files; git clone of git's own repository on the same disk" % self.files, ours, git)
        self.pair("the same; git clone of our repository over its protocol", ours, git_of_ours)
        if shutil.which("restic"):
            if not os.path.isdir(self.path("restic")):
                self.restic("init")
                self.restic("backup", self.corpus)
            self.pair("the same; restic restore", ours, restic)
        (root,) = os.listdir(self.path("restored"))
        subprocess.run(["diff", "-r", self.corpus, os.path.join(self.path("restored"), root)], check=True)
        self.clear("restored", "cloned", "restic-restored")

    def api(self):
        """The HTTP interface under load; it needs no corpus."""
        asked = api.Api(self, Daemon, cpu_of, memory_of)
        asked.requests()
        asked.idle_connections()
        if self.minutes:
            asked.churn(self.minutes)
        asked.stop()
        self.clear("state", "api.git")

    def count(self, repository):
        listed = subprocess.run(["git", "--git-dir", repository, "ls-tree", "-r", "--name-only", "main"], check=True,
                                stdout=subprocess.PIPE).stdout
        found = sum(1 for line in listed.splitlines() if b"/f" in line and not line.startswith(b".backupbot"))
        if found != self.files:
            sys.exit("%s holds %d of %d files" % (repository, found, self.files))

    @staticmethod
    def row(title, a, b):
        shown = "%.2f s, %.2f s, %.0f MB" % tuple(a)
        if not b:
            return "| %s | %s | | | |" % (title, shown)
        peer = "%.2f s, %.2f s, %.0f MB" % tuple(b)
        return "| %s | %s | %s | %.2f | %.2f |" % (title, shown, peer, a[0] / b[0], a[1] / b[1])

    def large(self):
        large.large(self, measure, medians, os.path.join(PROJECT, "target", "tools"))

    def encrypted(self):
        encrypted.encrypted(self, measure)

    def gpg(self):
        encrypted.gpg(self, measure)

    def table(self):
        print("\n| work; peer | ours: wall, CPU, peak | peer: wall, CPU, peak | wall ratio | CPU ratio |\n|---|---|---|---|---|")
        for title, a, b in self.rows:
            print(self.row(title, a, b))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--at", default=os.path.join(PROJECT, "target", "bench"))
    works = ["first", "rescan", "changed", "push", "ssh", "http", "fetch", "idle", "burst", "look", "restore", "api", "large",
             "encrypted", "gpg"]
    parser.add_argument("--only", choices=works, action="append", help="one of the measurements; may be repeated")
    parser.add_argument("--minutes", type=float, default=10, help="of churn in `api`")
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
    bench.minutes = arguments.minutes
    for work in arguments.only or works:
        getattr(bench, work)()
    bench.table()


if __name__ == "__main__":
    main()
