"""What the HTTP interface costs: `run.py --only api`.

A seeded load of keep-alive connections asks `/metrics` and `/api/v1/status` in turns, 1000 times a second in all, while
files change; then thousands of connections are opened that say nothing; then a churn of files and requests runs for
`--minutes`, and memory is looked at every ten seconds. CPU is that of our process as the kernel counts it.
"""

import json
import os
import resource
import shutil
import socket
import statistics
import threading
import time

RATE = 1000
SECONDS = 30
IDLE = 5000
CHANGES = 25


class Asker:
    """One connection that is kept."""

    def __init__(self, address, token):
        self.address, self.heads = address, []
        for path, more in (("/metrics", ""), ("/api/v1/status", "Authorization: Bearer %s\r\n" % token)):
            self.heads.append(("GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (path, ":".join(map(str, address)), more)).encode())
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, number):
        self.socket.sendall(self.heads[number % 2])
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = self.socket.recv(262144)
            if not piece:
                raise SystemExit("the connection was closed: %r" % answer[:200])
            answer += piece
        head, body = answer.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit("not 200: %r" % answer[:300])
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += self.socket.recv(262144)
        return length


def load(address, token, rate, seconds, took):
    """`rate` requests a second over one connection; each is begun at its time, however long the last one took."""
    asker = Asker(address, token)
    begun = time.monotonic()
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        pause = due - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        sent = time.monotonic()
        asker.ask(number)
        took.append(time.monotonic() - sent)


def several(address, token, rate, seconds):
    """The whole load from four threads; the times that answers took, in seconds."""
    took = [[] for _ in range(4)]
    threads = [threading.Thread(target=load, args=(address, token, rate / 4, seconds, took[n])) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(time for times in took for time in times)


def percentile(times, share):
    return times[min(len(times) - 1, int(len(times) * share))] * 1000


class Api:
    """A daemon that watches a small tree with a remote, and what is asked of it."""

    def __init__(self, bench, daemon_class, cpu_of, memory_of):
        self.bench, self.cpu_of, self.memory_of = bench, cpu_of, memory_of
        bench.clear("state", "api", "api.git")
        os.makedirs(bench.path("api"))
        for number in range(1000):
            self.write(number, "first")
        config = bench.path("api.yaml")
        with open(config, "w") as out:
            json.dump({"version": 1, "state_dir": bench.path("state"), "admin": {"listen": "127.0.0.1:0"},
                       "repositories": [{"name": "api",
                                         "roots": [{"name": "api", "path": bench.path("api"),
                                                    "debounce": {"quiet": "50ms", "max": "200ms"}}],
                                         "batch": {"after": "100ms"},
                                         # A churn of everything is meant here.
                                         "mass_change": {"policy": "alert"},
                                         "remotes": [{"name": "usb", "url": bench.path("api.git")}]}]}, out)
        self.daemon = daemon_class(bench, "--config", config)
        with open(os.path.join(bench.path("state"), "daemon.json")) as file:
            host, port = json.load(file)["address"].replace("http://", "").split(":")
        with open(os.path.join(bench.path("state"), "admin.token")) as file:
            self.token = file.read().strip()
        self.address, self.pid = (host, int(port)), self.daemon.child.pid

    def write(self, number, text):
        with open(os.path.join(self.bench.path("api"), "f%d" % number), "w") as out:
            out.write("%s %d\n" % (text, number))

    def commits(self, seconds, mark):
        """A change a second; the times of the commits, in milliseconds, and the CPU share meanwhile."""
        count = len(self.daemon.said("committed"))
        before, begun = self.cpu_of(self.pid), time.monotonic()
        for number in range(seconds):
            self.write(number, mark)
            time.sleep(max(0, begun + number + 1 - time.monotonic()))
        share = (self.cpu_of(self.pid) - before) / (time.monotonic() - begun)
        return [record["took_ms"] for record in self.daemon.said("committed")[count:]], share

    def requests(self):
        quiet, share_of_commits = self.commits(SECONDS, "quiet")
        before, begun = self.cpu_of(self.pid), time.monotonic()
        times = several(self.address, self.token, RATE, SECONDS)
        wall = time.monotonic() - begun
        share = (self.cpu_of(self.pid) - before) / wall
        print("%d requests of /metrics and /status in turns, %.0f a second: %.1f %% of a core; an answer took %.2f ms "
              "(median), %.2f ms (99th percentile)" % (len(times), len(times) / wall, share * 100, percentile(times, 0.5),
                                                       percentile(times, 0.99)), flush=True)
        loaded = []
        thread = threading.Thread(target=lambda: loaded.append(several(self.address, self.token, RATE, SECONDS)))
        thread.start()
        busy, share_of_both = self.commits(SECONDS, "busy")
        thread.join()
        print("a change a second: a commit took %d ms (median of %d), %d ms with that load beside it (of %d); %.1f and %.1f %% "
              "of a core" % (statistics.median(quiet), len(quiet), statistics.median(busy), len(busy), share_of_commits * 100,
                             share_of_both * 100), flush=True)

    def idle_connections(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
        before = self.memory_of(self.pid, "VmRSS")
        opened = []
        begun = time.monotonic()
        # Kept as browsers and scrapers keep them: one request each, and then nothing. Who asks nothing is closed after 10 s.
        head = ("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").encode()
        for _ in range(IDLE):
            opened.append(socket.create_connection(self.address))
            opened[-1].sendall(head)
        alive = sum(one.recv(4096).startswith(b"HTTP/1.1 200") for one in opened)
        took = time.monotonic() - begun
        asker = Asker(self.address, self.token)
        times = []
        for number in range(1000):
            sent = time.monotonic()
            asker.ask(number)
            times.append(time.monotonic() - sent)
        # The server closes what was idle for 30 s.
        waited = time.monotonic() - begun
        still = 0
        for one in opened:
            try:
                one.sendall(head)
                still += one.recv(4096).startswith(b"HTTP/1.1 200")
            except OSError:
                pass
        grown = self.memory_of(self.pid, "VmRSS") - before
        print("%d idle connections, opened and answered in %.1f s: %d answered, %d once more after %.0f s; others are answered in %.2f ms "
              "(99th percentile); %.0f MB more" % (len(opened), took, alive, still, waited, percentile(sorted(times), 0.99), grown), flush=True)
        for one in opened:
            one.close()

    def churn(self, minutes):
        """Changes, requests, connections that come and go, log levels; memory in MB."""
        begun, number, rows = time.monotonic(), 0, []
        while time.monotonic() < begun + minutes * 60:
            for _ in range(CHANGES):
                number += 1
                self.write(number % 2000, "churn %d" % number)
                if number % 7 == 0 and number > 1000:
                    path = os.path.join(self.bench.path("api"), "f%d" % (number % 2000))
                    os.remove(path)
            several(self.address, self.token, 200, 1)
            if number % (CHANGES * 10) == 0:
                rows.append((time.monotonic() - begun, self.memory_of(self.pid, "VmRSS")))
        third = max(1, len(rows) // 3)
        early, late = [row[1] for row in rows[third:2 * third]], [row[1] for row in rows[2 * third:]]
        print("churn of %d changes and %d requests in %.0f minutes: %.1f MB in the second third, %.1f MB in the last, %.1f MB "
              "at most" % (number, number // CHANGES * 200, minutes, statistics.mean(early), statistics.mean(late),
                           max(row[1] for row in rows)), flush=True)

    def stop(self):
        self.daemon.flush()
        self.daemon.stop()
        shutil.rmtree(self.bench.path("api"), ignore_errors=True)
