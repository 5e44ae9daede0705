"""A real registry and a real emulator of Google Cloud Storage, on free ports of this machine."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request


class Server:
    """A process that ends with `stop`."""

    def __init__(self, command, log, address=None, **options):
        self.log = open(log, "w+")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, **options)
        self.address = address or self._announced()
        host, port = self.address.split(":")
        while True:
            try:
                socket.create_connection((host, int(port))).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended at once: see {log}")
                time.sleep(0.01)

    def _announced(self):
        """The address that the registry says it listens on."""
        while self.process.poll() is None:
            self.log.seek(0)
            found = re.search(r"listening on (127\.0\.0\.1:\d+)", self.log.read())
            if found:
                return found.group(1)
            time.sleep(0.01)
        raise SystemExit(f"{self.process.args[0]} ended at once")

    def stop(self):
        self.process.kill()
        self.process.wait()


def registry(folder):
    os.makedirs(folder)
    config = f"{folder}/config.yml"
    with open(config, "w") as file:
        file.write(f"version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {folder}/data\n"
                   "http:\n  addr: 127.0.0.1:0\n")
    environment = dict(os.environ, OTEL_TRACES_EXPORTER="none")
    return Server(["docker-registry", "serve", config], f"{folder}/log", env=environment)


class Bucket(Server):
    """Keeps its objects as files, in memory where that is to be had: what it keeps in its own
    memory it searches from end to end at each request, so that every deploy would be slower than
    the one before."""

    def __init__(self, program, folder):
        os.makedirs(folder)
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.objects = tempfile.mkdtemp(prefix="forebay-bucket-", dir=memory)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        port = address.split(":")[1]
        command = [program, "-scheme", "http", "-backend", "filesystem", "-filesystem-root", self.objects, "-log-level", "error", "-host", "127.0.0.1",
                   "-port", port, "-external-url", f"http://{address}", "-public-host", address]
        super().__init__(command, f"{folder}/log", address)

    def stop(self):
        super().stop()
        shutil.rmtree(self.objects, ignore_errors=True)

    def create(self, name):
        self._ask("POST", "/storage/v1/b", {"name": name})

    def _ask(self, method, path, document):
        request = urllib.request.Request(f"http://{self.address}{path}", json.dumps(document).encode(),
                                         {"Content-Type": "application/json"}, method=method)
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).read()
