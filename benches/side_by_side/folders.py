"""A folder of 1,000 DAG files of which ten change goes to a bucket on a slow line."""

import os
import shutil
from pathlib import Path

from . import peers
from .deploys import Forebay, BigFlow, Scene
from .measure import call

CHANGED = 10


class Folder:
    """A candidate with a bucket and a copy of the same files."""

    def __init__(self, scene, name, project, env, files):
        self.name, self.scene, self.project, self.env = name, scene, project, env
        shutil.copytree(files, project.folder / ".dags")
        self.changes = 0

    def change(self):
        """As many files get one line more, other ones each time."""
        files = sorted((self.project.folder / ".dags").glob("*_dag.py"))
        start = self.changes * CHANGED
        self.changes += 1
        for file in files[start:start + CHANGED]:
            with open(file, "a") as text:
                text.write(f"\n# Remark {self.changes}.\n")

    def deploy(self, first=False):
        return self.scene.run([self.command(first)], self.project.folder, self.env)

    def command(self, first):
        if self.name == "Forebay":
            adopt = ["--no-adopt"] if first else []
            return [peers.FOREBAY, "deploy-dags", "-c", "dev", "--dags-dir", ".dags", *adopt]
        if self.name.startswith("BigFlow"):
            return ["bigflow", "deploy-dags", "-c", "dev"]
        return ["rclone", "--config", "/dev/null", "sync", ".dags", f":gcs:{self.project.bucket}/dags", "--checksum",
                "--gcs-anonymous", f"--gcs-endpoint=http://{self.scene.lines[1].address}/storage/v1/",
                "--transfers", "16", "--checkers", "16", "--retries", "1", "-q"]


def measure(folder, files, rounds):
    scene = Scene(folder, files)
    seen = {}
    try:
        made = Forebay(scene, 0)
        call([peers.FOREBAY, "build-dags", "-c", "dev", "--dag-format", "bigflow-1.11", "--image-ref", "tag"],
             made.project.folder, made.env)
        dags = made.project.folder / ".dags"
        image = (dags / "image_version.txt").read_text().strip()
        homes = {"Forebay": Forebay(scene, 1), "BigFlow 1.11.3": BigFlow(scene, 0), "rclone": BigFlow(scene, 1)}
        candidates = [Folder(scene, name, home.project, home.env, dags) for name, home in homes.items()]
        for candidate in candidates:
            retarget(scene, candidate, image)
        for candidate in candidates:
            seen.setdefault("first", {})[candidate.name] = [candidate.deploy(first=True)]
        for _ in range(rounds):
            for candidate in candidates:
                candidate.change()
                seen.setdefault("ten", {}).setdefault(candidate.name, []).append(candidate.deploy())
            for candidate in candidates:
                seen.setdefault("unchanged", {}).setdefault(candidate.name, []).append(candidate.deploy())
    finally:
        scene.stop()
    return {"files": files, "changed": CHANGED, "costs": seen}


def retarget(scene, candidate, image):
    """The files name the candidate's own repository, which has an image of that tag."""
    tag = image.rsplit(":", 1)[1]
    mine = f"{scene.lines[0].address}/{candidate.project.name}:{tag}"
    call(["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"oci:{peers.base()}:3.11",
          f"docker://{scene.registry.address}/{candidate.project.name}:{tag}"])
    for file in (candidate.project.folder / ".dags").iterdir():
        file.write_text(file.read_text().replace(image, mine))
