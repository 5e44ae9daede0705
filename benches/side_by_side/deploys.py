"""Whole deploys of a project on a slow line: Forebay beside BigFlow, whose image is built and pushed
by buildah, or by podman, because there need not be a Docker daemon."""

import os
import shutil
import tempfile
from pathlib import Path

from . import peers, servers
from .line import Line
from .measure import call, run, say, traced
from .work import Project, environment, wheelhouse

SECONDS = 0.05
# BigFlow asks `docker manifest inspect` whether the image is there, and lets gcloud log in.
SHIMS = {
    "docker": "#!/bin/sh\nexec skopeo inspect --raw --tls-verify=false \"docker://$3\"\n",
    "gcloud": "#!/bin/sh\n",
}


class Scene:
    """Servers behind lines, and for each candidate a project, a repository and a bucket."""

    def __init__(self, folder, workflows, seconds=SECONDS):
        self.folder, self.workflows = Path(folder), workflows
        self.running = tempfile.mkdtemp(prefix="run-")
        self.registry = servers.registry(f"{folder}/registry")
        self.bucket = servers.Bucket(peers.emulator(), f"{folder}/bucket")
        self.lines = [Line(self.registry.address, seconds), Line(self.bucket.address, seconds)]
        call(["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"oci:{peers.base()}:3.11",
              f"docker://{self.registry.address}/base/python:3.11"])

    def run(self, commands, folder, env):
        return run(commands, folder, env, self.lines, [self.registry.process.pid, self.bucket.process.pid])

    def stop(self):
        self.registry.stop()
        self.bucket.stop()
        shutil.rmtree(self.running, ignore_errors=True)

    def environment(self, name, **more):
        address = self.lines[1].address
        # Google's own client wants the scheme.
        return environment(self.folder / f"home-{name}", peers.python(), STORAGE_EMULATOR_HOST=f"http://{address}", **more)

    def project(self, name, env):
        bucket = f"bucket-{name}"
        self.bucket.create(bucket)
        return Project(self.folder / name, self.workflows, self.lines[0].address, name, bucket, env)


class Forebay:
    name = "Forebay"

    def __init__(self, scene, number):
        self.scene, self.key = scene, f"forebay-{number}"
        self.env = scene.environment(self.key, FOREBAY_STORE=str(scene.folder / f"store-{self.key}"))
        self.project = scene.project(self.key, self.env)

    def run(self, commands, count=False):
        if count:
            return traced(commands, self.project.folder, self.env)
        return self.scene.run(commands, self.project.folder, self.env)

    def deploy(self, count=False, first=False):
        adopt = ["--no-adopt"] if first else []
        return self.run([[peers.FOREBAY, "deploy", "-c", "dev", *adopt]], count)

    def roll_back(self):
        return self.run([[peers.FOREBAY, "rollback", "-c", "dev"]])

    def settle(self):
        """What was rolled away is replaced by something new."""
        self.project.change_line()
        self.deploy()

    def on_empty_machine(self, number):
        """A clone, an empty store, and the team's cache."""
        cache = ["--cache", f"gs://{self.project.bucket}/cache", "--cache-unsigned"]
        self.run([[peers.FOREBAY, "deploy", "-c", "dev", *cache, "--cache-write"]])
        name = f"{self.key}-empty-{number}"
        clone = self.project.clone(self.scene.folder / name)
        env = dict(self.env, HOME=str(self.scene.folder / f"home-{name}"),
                   FOREBAY_STORE=str(self.scene.folder / f"store-{name}"))
        os.makedirs(env["HOME"])
        command = [peers.FOREBAY, "deploy", "-c", "dev", *cache]
        return self.scene.run([command], clone.folder, env)


class BigFlow:
    engine = "buildah"
    name = "BigFlow 1.11.3, image by buildah"

    def __init__(self, scene, number):
        self.scene, self.key = scene, f"bigflow-{self.engine}-{number}"
        shims = scene.folder / "shims"
        shims.mkdir(exist_ok=True)
        for name, text in SHIMS.items():
            (shims / name).write_text(text)
            (shims / name).chmod(0o755)
        self.env = scene.environment(self.key, BUILDAH_ISOLATION="chroot")
        self.env["PATH"] = f"{shims}:{self.env['PATH']}"
        self.project = scene.project(self.key, self.env)
        self.storage = scene.folder / f"storage-{self.key}"
        configuration = scene.folder / "pip.conf"
        configuration.write_text("[global]\nno-index = true\nfind-links = /wheelhouse\n")

    def engine_at(self, storage):
        # podman takes no longer path than 50 characters for what runs.
        run = f"{self.scene.running}/{storage.name.removeprefix('storage-')}"
        return [self.engine, f"--root={storage}", f"--runroot={run}", "--storage-driver=overlay"]

    def commands(self, storage):
        image = f"{self.project.name}:latest"
        engine = self.engine_at(storage)
        return [
            # What `bigflow build` and `bigflow deploy` do.
            ["bigflow", "build-package"],
            ["bigflow", "build-dags", "-c", "dev"],
            [*engine, "build", "-q", "--layers", "--tls-verify=false", "--network=host",
             f"--volume={wheelhouse()}:/wheelhouse:ro", f"--volume={self.scene.folder}/pip.conf:/etc/pip.conf:ro",
             f"--tag={image}", "."],
            ["sh", "-c", 'image=$1; shift; exec "$@" "$image" "docker://$(cat .dags/image_version.txt)"', "push", image,
             *engine, "push", "-q", "--tls-verify=false"],
            ["bigflow", "deploy-dags", "-c", "dev"],
        ]

    def run(self, commands, count=False):
        if count:
            return traced(commands, self.project.folder, self.env)
        return self.scene.run(commands, self.project.folder, self.env)

    def deploy(self, count=False, first=False, storage=None):
        return self.run(self.commands(storage or self.storage), count)

    def roll_back(self):
        """There is no rollback: the commit before is checked out, built and deployed again."""
        self.project.git("checkout", "-q", "HEAD~1")
        cost = self.deploy()
        self.project.git("checkout", "-q", "-")
        return cost

    def settle(self):
        pass

    def on_empty_machine(self, number):
        return self.deploy(storage=self.scene.folder / f"storage-{self.key}-empty-{number}")


class BigFlowWithPodman(BigFlow):
    engine = "podman"
    name = "BigFlow 1.11.3, image by podman"


def measure(folder, workflows, rounds, kinds=(Forebay, BigFlow), seconds=SECONDS):
    """Every scenario for every candidate, in turn."""
    scene = Scene(folder, workflows, seconds)
    seen = {}

    def note(scenario, candidate, cost):
        seen.setdefault(scenario, {}).setdefault(candidate.name, []).append(cost)

    try:
        for number in range(min(rounds, 2)):
            candidates = [kind(scene, number) for kind in kinds]
            for candidate in candidates:
                note("first", candidate, candidate.deploy(first=True))
        for turn in range(rounds):
            say(f"  turn {turn + 1} of {rounds}")
            for scenario in ("unchanged", "line", "dependency", "rollback"):
                for candidate in candidates:
                    if scenario in ("line", "dependency"):
                        getattr(candidate.project, f"change_{scenario}")()
                    act = candidate.roll_back if scenario == "rollback" else candidate.deploy
                    # What takes a moment is measured more often.
                    often = 3 if scenario == "unchanged" and isinstance(candidate, Forebay) else 1
                    for _ in range(often):
                        note(scenario, candidate, act())
            for candidate in candidates:
                candidate.settle()
        for candidate in candidates:
            note("empty", candidate, candidate.on_empty_machine(0))
        # Once more to be counted, which makes it slower.
        counts = {}
        for scenario in ("unchanged", "line"):
            for candidate in candidates:
                if scenario == "line":
                    candidate.project.change_line()
                counts.setdefault(scenario, {})[candidate.name] = candidate.deploy(count=True)
    finally:
        scene.stop()
    return {"workflows": workflows, "seconds": seconds, "costs": seen, "counts": counts}
