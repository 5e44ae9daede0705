"""The work: BigFlow projects, and what changes in them."""

import os
import shutil
from pathlib import Path

from . import peers
from .measure import call

BUCKET_SETTINGS = """from bigflow import Config

deployment_config = Config('dev', {{
    'gcp_project_id': 'my-project',
    'docker_repository': '{registry}/{name}',
    'dags_bucket': '{bucket}',
}})
"""
DOCKERFILE = """FROM {registry}/base/python:3.11
ENV PIP_BREAK_SYSTEM_PACKAGES=1
WORKDIR /app
COPY ./resources/requirements.txt requirements.txt
RUN pip install --no-cache-dir -r requirements.txt
COPY ./dist dist
RUN pip install dist/*.whl
"""
WORKFLOW = '''"""Reads what the night has left, counts it and writes the sums."""

import bigflow


class Read(bigflow.Job):
    id = "read"

    def execute(self, context):
        print("reading table {number}")


class Sum(bigflow.Job):
    id = "sum"
    retry_count = 2
    retry_pause_sec = 60

    def __init__(self, table):
        super().__init__()
        self.table = table

    def execute(self, context):
        print(f"summing {{self.table}}")


workflow_{number} = bigflow.Workflow(
    workflow_id="workflow_{number}",
    definition=[Read(), Sum("table_{number}")],
    schedule_interval="@daily",
)
'''
# Small distributions of which one is added where a dependency changes.
EXTRA = ["colorama==0.4.6", "pyjokes==0.6.0", "tqdm==4.66.4", "six==1.16.0", "tomli==2.0.1", "iniconfig==2.0.0"]


def wheelhouse():
    """The wheels of the example's requirements, which is BigFlow with what it needs."""
    requirements = (peers.HERE / "examples/hello/resources/requirements.txt").read_text().splitlines()
    return peers.wheels("hello", [*requirements, *EXTRA])


class Project:
    """A git repository with a BigFlow project that goes to one repository and one bucket."""

    def __init__(self, folder, workflows, registry, name, bucket, env, settings=True):
        """`settings`: whether its own Dockerfile and environments are replaced by those that go there."""
        self.folder, self.env, self.name, self.bucket = Path(folder), env, name, bucket
        self.changes = self.dependencies = 0
        shutil.copytree(peers.HERE / "examples/hello", folder, ignore=shutil.ignore_patterns(".local", ".dags", "forebay.lock"))
        if workflows > 2:
            for number in range(workflows - 2):
                self.write(f"hello/workflow_{number}.py", WORKFLOW.format(number=number))
        if settings:
            self.write("Dockerfile", DOCKERFILE.format(registry=registry))
            self.write("deployment_config.py", BUCKET_SETTINGS.format(registry=registry, name=name, bucket=bucket))
        self.git("init", "-q")
        # What builds leave behind is not the project's.
        self.append(".git/info/exclude", "*.egg-info\n.dags\nbuild\ndist\n")
        self.commit()

    def write(self, name, text):
        (self.folder / name).write_text(text)

    def append(self, name, text):
        with open(self.folder / name, "a") as file:
            file.write(text)

    def git(self, *arguments):
        call(["git", *arguments], self.folder, self.env)

    def commit(self):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change")

    def change_line(self):
        self.changes += 1
        self.append("hello/greeting.py", f"\n# Remark {self.changes}.\n")
        self.commit()

    def change_dependency(self):
        self.append("resources/requirements.txt", EXTRA[self.dependencies] + "\n")
        self.dependencies += 1
        self.commit()

    def clone(self, folder):
        call(["git", "clone", "-q", self.folder, folder], env=self.env)
        clone = object.__new__(Project)
        clone.__dict__.update(self.__dict__, folder=Path(folder))
        return clone


def environment(home, python, **more):
    """Nothing of this machine's settings but how it reaches the package index."""
    kept = {name: value for name, value in os.environ.items()
            if name.startswith("PIP_") or name.lower().endswith("_proxy") or name.startswith("SSL_CERT")}
    os.makedirs(home, exist_ok=True)
    identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER")
                for what, value in (("NAME", "Bench"), ("EMAIL", "bench@example.com"))}
    # What asks the package index is given the wheels in a folder: its weather decides nothing.
    return {**kept, **identity, "HOME": str(home), "TZ": "UTC", "LANG": "C.UTF-8", "GIT_CONFIG_NOSYSTEM": "1",
            "VIRTUAL_ENV": str(python), "PATH": f"{python}/bin:{os.environ['PATH']}",
            "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheelhouse()), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONDONTWRITEBYTECODE": "", **more}
