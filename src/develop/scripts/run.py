# Runs a workflow, or one of its jobs. Runs on CPython 3.8 and newer.
import difflib
import importlib
import logging
import os
import sys

ROOT_PACKAGES, WORKFLOW, JOB, RUNTIME, DIRECTORY = sys.argv[1:6]
sys.argv[1:] = []
sys.path[0] = DIRECTORY
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

import bigflow


def modules():
    for package in ROOT_PACKAGES.split(","):
        for folder, _, files in sorted(os.walk(os.path.join(DIRECTORY, package))):
            for name in sorted(files):
                if name.endswith(".py"):
                    relative = os.path.relpath(os.path.join(folder, name), DIRECTORY)[: -len(".py")]
                    parts = relative.split(os.sep)
                    yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def find_workflow():
    known = []
    for name in modules():
        try:
            module = importlib.import_module(name)
        except ValueError as error:  # as BigFlow does
            print("skipping module %s: %s" % (name, error), file=sys.stderr)
            continue
        for value in list(vars(module).values()):
            if isinstance(value, bigflow.Workflow):
                if value.workflow_id == WORKFLOW:
                    return value
                known.append(value.workflow_id)
    fail("workflow", WORKFLOW, "the project", sorted(set(known)))


def fail(kind, name, place, known):
    print("error: there is no %s %r in %s; it has %s" % (kind, name, place, ", ".join(known) or "none"), file=sys.stderr)
    for likely in difflib.get_close_matches(name, known, 1):
        print("  next: did you mean %s?" % likely, file=sys.stderr)
    sys.exit(1)


workflow = find_workflow()
if JOB:
    jobs = [job.job.id for job in workflow._build_sequential_order()]
    if JOB not in jobs:
        fail("job", JOB, "the workflow %s" % WORKFLOW, jobs)
    workflow.run_job(JOB, RUNTIME)
else:
    workflow.run(RUNTIME)
