"""Layers of BigFlow's own dependency set, and a layer of 1 GB: `cargo bench` measures both, in
processes of their own; here its lines are read."""

import os
import re
import tempfile
import zipfile

from . import peers
from .measure import call, run

REQUIREMENTS = ["bigflow[bigquery,log,dataproc,dataflow]==1.11.3", "setuptools<82"]
# BigFlow pins a release of it that contradicts its own pin of Beam on CPython 3.11.
OVERRIDES = ["grpcio-status>=1.48"]


def dependencies():
    wheels = peers.wheels("bigflow", REQUIREMENTS, OVERRIDES)
    env = dict(os.environ, FOREBAY_BENCH_WHEELS=str(wheels), PATH=f"{peers.python()}/bin:{os.environ['PATH']}")
    said = call(["cargo", "bench", "--quiet", "--locked", "--bench", "image_layers"], peers.HERE, env)
    rows, starts, share = [], [], None
    for line in said.splitlines():
        # own CPU s, that of children, seconds, MiB, MB, what. Some are left blank.
        found = re.match(r"^([ \d.]{8}) ([ \d.]{8}) ([ \d.]{8}) ([ \d.]{8}) ([ \d.]{8})  (\S.*)$", line)
        if found:
            own, children, wall, peak, size = (float(cell) if cell.strip() else None for cell in found.groups()[:5])
            rows.append({"what": found.group(6), "own": own, "children": children, "wall": wall, "peak": peak, "size": size})
        found = re.match(r"^ *([\d.]+) CPU s: `(.*)`, (.+) \(median", line)
        if found:
            starts.append({"cpu": float(found.group(1)), "imports": found.group(2), "what": found.group(3)})
        found = re.search(r"one small distribution more: ([\d.]+) of ([\d.]+) MB", line)
        if found:
            share = [float(found.group(1)), float(found.group(2))]
    return {"rows": rows, "starts": starts, "share": share, "install": installs(wheels), "wheels": measure_of(wheels)}


def measure_of(wheels):
    files = list(wheels.glob("*.whl"))
    unpacked = sum(entry.file_size for file in files for entry in zipfile.ZipFile(file).infolist())
    return {"count": len(files), "packed": sum(file.stat().st_size for file in files), "unpacked": unpacked}


def installs(wheels):
    """What pip and uv need to install the same files into a folder."""
    python = peers.python()
    files = sorted(wheels.glob("*.whl"))
    seen = []
    with tempfile.TemporaryDirectory(prefix="installs-") as folder:
        for name, command in (
            ("pip install --target", [python / "bin/pip", "install", "-q", "--no-deps", "--no-index", "--target"]),
            ("uv pip install --target, nothing in its cache",
             [python / "bin/uv", "pip", "install", "-q", "--no-deps", "--no-index", "--link-mode", "copy",
              "--python", python / "bin/python", "--cache-dir", f"{folder}/cache", "--target"]),
        ):
            target = f"{folder}/{name.split()[0]}"
            seen.append({"what": name, **run([[*command, target, *files]])})
    return seen


def layer():
    said = call(["cargo", "bench", "--quiet", "--locked", "--bench", "registry_push"], peers.HERE)
    rows = []
    for line in said.splitlines():
        found = re.match(r"^(\w+)\s+([\d.]+) CPU s,\s+([\d.]+) s,\s+(\d+) MiB", line)
        if found:
            rows.append({"what": found.group(1), "cpu": float(found.group(2)), "wall": float(found.group(3)), "peak": float(found.group(4))})
    return {"rows": rows, "text": said.splitlines()[0] if said else ""}
