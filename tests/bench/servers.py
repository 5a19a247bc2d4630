"""The servers that pushes are measured against: a real sshd, and nginx with git http-backend. Both listen on 127.0.0.1
and end with the measurement."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time

PASSWORD = "measured"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("a server did not start on port %d" % port)


class Sshd:
    """One key lets in whoever measures."""

    def __init__(self, base):
        self.base, self.port = os.path.join(base, "sshd"), free_port()
        shutil.rmtree(self.base, ignore_errors=True)
        os.makedirs(self.base)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.path(name)], check=True)
        shutil.copy(self.path("user.pub"), self.path("authorized_keys"))
        with open(self.path("host.pub")) as key, open(self.path("known_hosts"), "w") as known:
            known.write("[127.0.0.1]:%d %s" % (self.port, key.read()))
        with open(self.path("config"), "w") as config:
            config.write("\n".join([
                "Port %d" % self.port, "ListenAddress 127.0.0.1", "HostKey " + self.path("host"),
                "AuthorizedKeysFile " + self.path("authorized_keys"), "PidFile none", "StrictModes no", "UsePAM no",
                "PermitRootLogin yes", "PasswordAuthentication no", "AcceptEnv GIT_PROTOCOL", ""]))
        os.makedirs("/run/sshd", exist_ok=True)
        self.child = subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", self.path("config")],
                                      stderr=subprocess.DEVNULL)
        wait_for(self.port)

    def path(self, name):
        return os.path.join(self.base, name)

    def url(self, repository):
        return "ssh://%s@127.0.0.1:%d%s" % (getpass.getuser(), self.port, repository)

    def credentials(self):
        return "{ssh_key_file: %s, known_hosts_file: %s}" % (self.path("user"), self.path("known_hosts"))

    def flags(self):
        return ["--ssh-key-file", self.path("user"), "--known-hosts-file", self.path("known_hosts")]

    def environment(self):
        return {"GIT_SSH_COMMAND": "ssh -F none -i %s -o UserKnownHostsFile=%s" % (self.path("user"),
                                                                                 self.path("known_hosts"))}

    def git_url(self, repository):
        return self.url(repository)

    def stop(self):
        self.child.terminate()
        self.child.wait()


class Web:
    """Without encryption, so that what is measured is Git; with a password, so that both have to give it."""

    def __init__(self, base):
        self.root, self.base, self.port = base, os.path.join(base, "web"), free_port()
        shutil.rmtree(self.base, ignore_errors=True)
        os.makedirs(self.base)
        for name, text in (("htpasswd", "bot:{PLAIN}%s\n" % PASSWORD), ("password", PASSWORD)):
            with open(self.path(name), "w") as out:
                out.write(text)
            os.chmod(self.path(name), 0o600)
        environment = dict(os.environ, HOME=self.base)
        self.gateway = subprocess.Popen(["fcgiwrap", "-c", "4", "-s", "unix:" + self.path("socket")], env=environment,
                                        stderr=subprocess.DEVNULL, start_new_session=True)
        with open(self.path("config"), "w") as config:
            config.write(self.config())
        self.child = subprocess.Popen(["/usr/sbin/nginx", "-p", self.base, "-c", self.path("config")],
                                      stderr=subprocess.DEVNULL)
        wait_for(self.port)

    def config(self):
        temporary = "".join("%s_temp_path %s;" % (name, self.path(name))
                            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        parameters = "".join("fastcgi_param %s %s;" % pair for pair in (
            ("SCRIPT_FILENAME", "/usr/lib/git-core/git-http-backend"), ("GIT_PROJECT_ROOT", self.root),
            ("GIT_HTTP_EXPORT_ALL", "1"), ("PATH_INFO", "$uri"), ("REMOTE_USER", "$remote_user"),
            ("QUERY_STRING", "$query_string"), ("REQUEST_METHOD", "$request_method"),
            ("CONTENT_TYPE", "$content_type"), ("CONTENT_LENGTH", "$content_length"),
            ("GIT_PROTOCOL", "$http_git_protocol")))
        user = "user root;" if os.getuid() == 0 else ""
        return """%s daemon off; pid %s; error_log %s; events {}
http { access_log off; %s client_max_body_size 0;
server { listen 127.0.0.1:%d; auth_basic git; auth_basic_user_file %s;
location / { %s fastcgi_pass unix:%s; fastcgi_read_timeout 600; } } }
""" % (user, self.path("pid"), self.path("error.log"), temporary, self.port, self.path("htpasswd"), parameters,
       self.path("socket"))

    def path(self, name):
        return os.path.join(self.base, name)

    def url(self, repository):
        return "http://127.0.0.1:%d/%s" % (self.port, os.path.relpath(repository, self.root))

    def credentials(self):
        return "{username: bot, password_file: %s}" % self.path("password")

    def flags(self):
        return ["--username", "bot", "--password-file", self.path("password")]

    def environment(self):
        return {}

    def git_url(self, repository):
        return self.url(repository).replace("http://", "http://bot:%s@" % PASSWORD)

    def stop(self):
        # Its workers are its children, and outlive it.
        os.killpg(self.gateway.pid, signal.SIGTERM)
        self.child.terminate()
        for child in (self.child, self.gateway):
            child.wait()
