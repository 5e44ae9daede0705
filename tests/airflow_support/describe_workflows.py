# Says what a project's workflows say, from BigFlow's own objects, in the words of
# read_dags.py: describe_workflows.py ANSWER START_TIME DATE…, in the project's directory.
# The graph is read from the definition itself, not from what BigFlow makes of it for a DAG.
import datetime
import json
import pathlib
import sys

import bigflow.build.spec
import bigflow.cli
from bigflow.commons import as_timedelta
from bigflow.dagbuilder import get_dag_deployment_id

ANSWER, START_TIME, DATES = sys.argv[1], sys.argv[2], sys.argv[3:]
sys.argv = ["bigflow", "build-dags"]
sys.path.insert(0, str(pathlib.Path.cwd()))
PROJECT = bigflow.build.spec.get_project_spec()
START = datetime.datetime.strptime(START_TIME, "%Y-%m-%d %H:%M:%S")
# Airflow's own, where a job says nothing.
AIRFLOWS_RETRY_DELAY = datetime.timedelta(minutes=5)


def instant(value):
    value = value if value.tzinfo else value.replace(tzinfo=datetime.timezone.utc)
    return value.astimezone(datetime.timezone.utc).isoformat()


def task_id(job):
    return job.id.replace("_", "-")


def tasks_of(workflow):
    """Task ids to their job and the task ids before it."""
    tasks = {}
    for source, targets in workflow.definition.job_graph.items():
        tasks.setdefault(task_id(source.job), (source.job, set()))
        for target in targets:
            tasks.setdefault(task_id(target.job), (target.job, set()))[1].add(task_id(source.job))
    return tasks


def describe_task(workflow, package, job, upstream, secrets, start_date):
    arguments = [
        [
            "--job",
            workflow.workflow_id + "." + job.id,
            "--runtime",
            datetime.datetime.fromisoformat(date).strftime("%Y-%m-%d %H:%M:%S"),
            "--project-package",
            package,
            "--config",
            "value of " + workflow.env_variable,
        ]
        for date in DATES
    ]
    pause = as_timedelta(getattr(job, "retry_pause_sec", 60))
    return {
        "upstream": sorted(upstream),
        "retries": getattr(job, "retry_count", 3),
        "retry_delay": (AIRFLOWS_RETRY_DELAY if pause is None else pause).total_seconds(),
        "execution_timeout": as_timedelta(getattr(job, "execution_timeout_sec", None) or 3 * 60 * 60).total_seconds(),
        "depends_on_past": bool(workflow.depends_on_past),
        "owner": "airflow",
        "emails": [False, False],
        "config_file": "/home/airflow/composer_kube_config",
        "connection": "kubernetes_default",
        "removes_its_pod": True,
        "start_date": start_date,
        "arguments": arguments,
        "arguments_by_hand": arguments,
        "pod": {
            "namespace": "composer-user-workloads",
            "name_without_suffix": True,
            "image": "%s:%s" % (PROJECT.docker_repository, PROJECT.version.replace("+", "-")),
            "command": ["python", "-m", "bigflow", "run"],
            # Airflow writes the names of variables in capitals.
            "secrets": [[secret.upper(), secret.replace("_", "-"), secret] for secret in secrets],
        },
    }


def describe(workflow, package):
    secrets = list(workflow.secrets)
    start_date = instant(workflow.start_time_factory(START))
    return {
        "catchup": True,
        "max_active_runs": 1,
        "start_date": start_date,
        "tasks": {
            task: describe_task(workflow, package, job, upstream, secrets, start_date)
            for task, (job, upstream) in tasks_of(workflow).items()
        },
    }


found = {}
for package in PROJECT.packages:
    if "." not in package:
        for workflow in bigflow.cli.walk_workflows(pathlib.Path(package)):
            # The package that made it, if it was imported into another one.
            found.setdefault(id(workflow), (workflow, package))
dags = {
    get_dag_deployment_id(workflow.workflow_id, START, PROJECT.version): describe(workflow, package)
    for workflow, package in found.values()
}
variables = sorted({workflow.env_variable for workflow, _ in found.values()})
with open(ANSWER, "w") as file:
    json.dump({"dags": dags, "variables": variables}, file)
