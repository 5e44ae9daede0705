# Loads folders of DAG files as Airflow does, without a database, and answers with what
# Airflow understood. The request and the answer are JSON files: read_dags.py REQUEST ANSWER.
#
# The request: "folders" (names to paths), "variables" (Airflow variables), "dates" (of runs).
# The answer: for each folder the files with import errors, and the DAGs by their ids.
import datetime
import inspect
import json
import os
import sys
import types
import uuid
import warnings

with open(sys.argv[1]) as file:
    REQUEST = json.load(file)
for name, value in REQUEST["variables"].items():
    os.environ["AIRFLOW_VAR_" + name.upper()] = value

warnings.simplefilter("ignore")
import airflow
import pendulum

VERSION = tuple(int(part) for part in airflow.__version__.split(".")[:2])
if VERSION >= (3, 0):
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk.api.datamodels._generated import DagRun, DagRunState, DagRunType, TIRunContext
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
    from airflow.serialization.serialized_objects import DagSerialization
else:
    from airflow.models import DagBag
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

from airflow.timetables.base import TimeRestriction


def load(folder):
    if VERSION >= (3, 0):
        return DagBag(dag_folder=folder)
    return DagBag(dag_folder=folder, include_examples=False, read_dags_from_db=False)


def instant(value):
    return None if value is None else pendulum.instance(value).in_timezone("UTC").isoformat()


def seconds(value):
    return None if value is None else value.total_seconds()


def context_2(dag, task, date):
    """What a scheduled run's templates see in Airflow 2."""
    run = DagRun(
        dag_id=dag.dag_id,
        run_id="manual__1",
        run_type="manual",
        execution_date=date,
        data_interval=(date, date.add(days=1)),
    )
    instance = TaskInstance(task=task, run_id=run.run_id)
    instance.dag_run = run
    # There is no database with earlier runs.
    instance.get_previous_dagrun = lambda *_, **__: None
    return instance.get_template_context()


def context_3(dag, task, date, by_hand):
    """What a run's templates see in Airflow 3. One started by hand may have no logical date."""
    logical_date = None if by_hand else date
    run = DagRun(
        dag_id=dag.dag_id,
        run_id="manual__1",
        run_type=DagRunType.MANUAL,
        state=DagRunState.RUNNING,
        logical_date=logical_date,
        data_interval_start=logical_date,
        data_interval_end=logical_date and date.add(days=1),
        run_after=date,
        start_date=date,
        end_date=None,
        consumed_asset_events=[],
        partition_key=None,
    )
    instance = RuntimeTaskInstance.model_construct(
        id=uuid.uuid4(),
        task=task,
        task_id=task.task_id,
        dag_id=dag.dag_id,
        run_id=run.run_id,
        map_index=-1,
        start_date=date,
        _ti_context_from_server=TIRunContext(dag_run=run, max_tries=0),
    )
    return instance.get_template_context()


def rendered_arguments(dag, task, date, by_hand=False):
    date = pendulum.parse(date)
    context = context_3(dag, task, date, by_hand) if VERSION >= (3, 0) else context_2(dag, task, date)
    return task.render_template(task.arguments, context, dag.get_template_env())


def pod(task):
    """The pod that the operator would ask Kubernetes for, without asking it."""
    task.__dict__["hook"] = types.SimpleNamespace(is_in_cluster=False)
    wanted = task.build_pod_request_obj(None)
    [container] = wanted.spec.containers
    return {
        "namespace": wanted.metadata.namespace,
        "name_without_suffix": wanted.metadata.name.startswith(task.name[:50]),
        "image": container.image,
        "command": container.command,
        "secrets": [
            [variable.name, variable.value_from.secret_key_ref.name, variable.value_from.secret_key_ref.key]
            for variable in container.env
        ],
    }


def removes_its_pod(task):
    action = getattr(task, "on_finish_action", None)
    return task.is_delete_operator_pod if action is None else action.value == "delete_pod"


def describe_task(dag, task):
    return {
        "upstream": sorted(task.upstream_task_ids),
        "retries": task.retries,
        "retry_delay": seconds(task.retry_delay),
        "execution_timeout": seconds(task.execution_timeout),
        "depends_on_past": bool(task.depends_on_past),
        "owner": task.owner,
        "emails": [task.email_on_failure, task.email_on_retry],
        "config_file": task.config_file,
        "connection": task.kubernetes_conn_id,
        "removes_its_pod": removes_its_pod(task),
        "start_date": instant(task.start_date),
        "arguments": [rendered_arguments(dag, task, date) for date in REQUEST["dates"]],
        "arguments_by_hand": [
            rendered_arguments(dag, task, date, by_hand=VERSION >= (3, 0)) for date in REQUEST["dates"]
        ],
        "pod": pod(task),
    }


def timeline(scheduled):
    """The first runs, as the scheduler would start them."""
    runs, last = [], None
    restriction = TimeRestriction(scheduled._time_restriction.earliest, None, scheduled.catchup)
    if restriction.earliest is None:
        return None
    while len(runs) < 4:
        info = scheduled.timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        if info is None:
            break
        last = info.data_interval
        runs.append([instant(moment) for moment in (info.logical_date, last.start, last.end, info.run_after)])
    return runs


def describe_dag(dag):
    # What the scheduler works with went through Airflow's database.
    scheduled = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    return {
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "start_date": instant(dag.default_args["start_date"].replace(tzinfo=dag.default_args["start_date"].tzinfo or datetime.timezone.utc)),
        "schedule": scheduled.timetable.summary,
        # Only DAGs that come to their end have one.
        **({"end_date": instant(scheduled.end_date)} if dag.end_date else {}),
        "runs": timeline(scheduled),
        "tasks": {task.task_id: describe_task(dag, task) for task in dag.tasks},
    }


def describe(folder):
    bag = load(folder)
    return {
        "errors": {os.path.basename(path): text for path, text in bag.import_errors.items()},
        "dags": {dag_id: describe_dag(dag) for dag_id, dag in bag.dags.items()},
    }


answer = {name: describe(path) for name, path in REQUEST["folders"].items()}
with open(sys.argv[2], "w") as file:
    json.dump(answer, file)
# Exit handlers of Airflow's log service are none of ours.
os._exit(0)
