"""Builds a project's wheel as `bigflow build-package` does: by setuptools, as its setup.py says.

Request: {"out": folder for the wheel, "version": a version, or null for one of the contents}.
Answer: the wheel's file name. The current folder is a copy of the sources.
"""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

# 1980-01-01T00:00:01Z, as all files of layers.
EPOCH = 315532801


def build(version, out):
    """Runs the build in this process."""
    import runpy
    import tarfile

    import bigflow.version

    # The version is said, not found: git is not here, and its answer is no content.
    bigflow.version.get_version = lambda *arguments, **named: version

    original = tarfile.TarFile.gettarinfo

    def gettarinfo(self, *arguments, **named):
        # The archive of the sources, which the wheel has inside, says nothing of this machine.
        info = original(self, *arguments, **named)
        if info is not None:
            info.mtime = EPOCH
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mode = 0o755 if info.isdir() or info.mode & 0o100 else 0o644
        return info

    tarfile.TarFile.gettarinfo = gettarinfo
    os.umask(0o022)
    sys.path.insert(0, os.getcwd())
    sys.argv = ["setup.py", "bdist_wheel", "--dist-dir", out]
    for script in ("setup.py", "project_setup.py"):
        if os.path.exists(script):
            runpy.run_path(script, run_name="__main__")
            return
    from bigflow.build import setup

    setup()


def built(sources, version, out):
    """The wheel, built in a copy of the sources by a process of its own."""
    work = pathlib.Path(out, "work")
    shutil.copytree(sources, work, symlinks=True)
    folder = pathlib.Path(out, "wheel")
    folder.mkdir()
    environment = dict(
        os.environ, SOURCE_DATE_EPOCH=str(EPOCH), PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1"
    )
    subprocess.run(
        [sys.executable, os.path.abspath(__file__), "--build", version, str(folder)],
        cwd=work,
        env=environment,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    shutil.rmtree(work)
    (wheel,) = folder.glob("*.whl")
    return wheel


def version_of(wheel):
    """A version that changes with what is in the wheel, and with nothing else."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if not name.endswith(".dist-info/RECORD"):
                content = hashlib.sha256(archive.read(name)).hexdigest()
                digest.update(f"{name}\0{content}\n".encode())
    return "0+t" + digest.hexdigest()[:12]


def main():
    request = json.loads(pathlib.Path(sys.argv[1]).read_text())
    out = pathlib.Path(request["out"])
    version = request["version"]
    if version is None:
        first = out / "first"
        first.mkdir()
        version = version_of(built(os.getcwd(), "0", first))
    last = out / "last"
    last.mkdir()
    wheel = built(os.getcwd(), version, last)
    wheel.rename(out / wheel.name)
    pathlib.Path(sys.argv[2]).write_text(json.dumps(wheel.name))


if __name__ == "__main__":
    if sys.argv[1] == "--build":
        build(sys.argv[2], sys.argv[3])
    else:
        main()
