# Imports the project's modules once and answers with its workflows, and with
# everything below the project's directory, and every environment variable, that
# was read on the way.
import datetime
import functools
import importlib


def extend_path():
    # The project first, as BigFlow does; packages that were laid out for it come
    # before what is installed, but not before the standard library.
    place = next(
        (i for i, path in enumerate(sys.path) if path.endswith(("site-packages", "dist-packages"))), len(sys.path)
    )
    sys.path[place:place] = REQUEST["import_paths"]
    if DIRECTORY not in sys.path:
        sys.path.insert(0, DIRECTORY)


class Refused(Exception):
    """A workflow that no DAG file can be written from."""

    def __init__(self, workflow, what):
        super().__init__(what)
        self.workflow = workflow


# Where workflows were made, by the identity of the object, which is kept alive here.
PLACES = {}


def remember_places(workflow_class):
    original = workflow_class.__init__

    @functools.wraps(original)
    def __init__(self, *args, **kwargs):
        frame = sys._getframe(1)
        while frame is not None:
            path = project_path(frame.f_code.co_filename)
            generated = frame.f_code.co_filename.startswith("<")
            if frame.f_code.co_name == "<module>" and path is not None and not generated:
                PLACES[id(self)] = (self, path, frame.f_lineno)
                break
            frame = frame.f_back
        original(self, *args, **kwargs)

    workflow_class.__init__ = __init__


def literal(workflow, what, value):
    """`repr(value)`, if the DAG file can hold it."""
    text = repr(value)
    try:
        same = eval(text, {"datetime": datetime}) == value
    except Exception:
        same = False
    if not same:
        raise Refused(
            workflow,
            "%s is a %s: a DAG file can hold numbers, texts, and values of the module datetime (its repr is %.200s)"
            % (what, type(value).__name__, text),
        )
    return text


def text(workflow, what, value):
    if not isinstance(value, str):
        raise Refused(workflow, "%s must be a str, but is a %s" % (what, type(value).__name__))
    return str.__str__(value)


def as_timedelta(workflow, what, value):
    """`bigflow.commons.as_timedelta`."""
    if value is None or value == "":
        return None
    if isinstance(value, datetime.timedelta):
        return value
    try:
        return datetime.timedelta(seconds=float(value))
    except (TypeError, ValueError, OverflowError) as exception:
        raise Refused(workflow, "%s is not a number of seconds: %s" % (what, exception))


def describe_schedule(workflow):
    value = workflow.schedule_interval
    if value is None:
        kind = "none"
    elif isinstance(value, str):
        kind = "text"
    elif isinstance(value, datetime.timedelta):
        kind = "interval"
    else:
        kind = "other"
    return {"kind": kind, "literal": literal(workflow, "schedule_interval", value)}


# At these moments a start_time_factory is asked too: its answers tell one factory
# from another, whatever the clock says.
REFERENCE_TIMES = [
    datetime.datetime(2020, 2, 29, 0, 0),
    datetime.datetime(2021, 7, 15, 13, 0),
]


def describe_start(workflow, bigflow_workflow):
    factory = workflow.start_time_factory
    if factory is bigflow_workflow.daily_start_time:
        return {"kind": "daily"}
    if factory is bigflow_workflow.hourly_start_time:
        return {"kind": "hourly"}
    start_time = datetime.datetime.strptime(REQUEST["start_time"], "%Y-%m-%dT%H:%M:%S")
    references = []
    for moment in REFERENCE_TIMES:
        try:
            references.append(repr(factory(moment)))
        except Exception as exception:
            references.append(type(exception).__name__)
    return {
        "kind": "custom",
        "start_time": REQUEST["start_time"],
        "literal": literal(workflow, "the answer of start_time_factory", factory(start_time)),
        "references": references,
    }


def describe_jobs(workflow):
    jobs = []

    def describe(workflow_job, dependencies):
        job = workflow_job.job
        what = "job %s: " % (job.id,)
        secrets = [text(workflow, "a secret's name", secret) for secret in workflow.secrets] if workflow.secrets else None
        timeout = getattr(job, "execution_timeout_sec", None)
        jobs.append(
            {
                "id": text(workflow, "a job's id", job.id),
                "retries": literal(workflow, what + "retry_count", getattr(job, "retry_count", 3)),
                "retry_delay": literal(
                    workflow,
                    what + "retry_pause_sec",
                    as_timedelta(workflow, what + "retry_pause_sec", getattr(job, "retry_pause_sec", 60)),
                ),
                "execution_timeout": literal(
                    workflow,
                    what + "execution_timeout_sec",
                    as_timedelta(workflow, what + "execution_timeout_sec", timeout),
                )
                if timeout
                else None,
                "secrets": secrets
                if secrets is None
                else [{"target": repr(secret), "secret": repr(secret.replace("_", "-"))} for secret in secrets],
                "dependencies": [text(workflow, "a job's id", dependency.job.id) for dependency in dependencies],
            }
        )

    walk = getattr(workflow, "_call_on_graph_nodes", None) or workflow.call_on_graph_nodes
    walk(describe)
    return jobs


def describe_workflow(workflow, package, bigflow_workflow):
    _, file, line = PLACES[id(workflow)]
    return {
        "id": text(workflow, "workflow_id", workflow.workflow_id),
        "package": package,
        "file": file,
        "line": line,
        "depends_on_past": literal(workflow, "depends_on_past", workflow.depends_on_past),
        "schedule": describe_schedule(workflow),
        "start_date": describe_start(workflow, bigflow_workflow),
        "environment_variable": text(workflow, "env_variable", getattr(workflow, "env_variable", "env")),
        "jobs": describe_jobs(workflow),
    }


def main():
    extend_path()
    sys.argv = ["bigflow", "build-dags"]
    begin_trace()
    try:
        import bigflow.configuration
        import bigflow.workflow
    except Exception as exception:
        return {"error": {"kind": "bigflow", **describe_exception(exception, DIRECTORY)}}
    capture = getattr(bigflow.configuration.Config, "_capture_osenv_properties", None)
    if capture is not None:
        bigflow.configuration.Config._capture_osenv_properties = lambda self: os.environ.with_prefix(
            self.environment_variables_prefix
        )
    remember_places(bigflow.workflow.Workflow)

    packages = {module["package"] for module in REQUEST["modules"]}
    found = {}
    for request in REQUEST["modules"]:
        try:
            module = importlib.import_module(request["name"])
        except KeyboardInterrupt:
            raise
        except BaseException as exception:
            described = describe_exception(exception, DIRECTORY)
            return {"error": {"kind": "import", "module": request["name"], "source": request["file"], **described}}
        for value in list(vars(module).values()):
            if isinstance(value, bigflow.workflow.Workflow) and id(value) not in found:
                PLACES.setdefault(id(value), (value, request["file"], None))
                home = PLACES[id(value)][1].split("/")[0]
                found[id(value)] = (value, home if home in packages else request["package"])

    workflows = []
    for workflow, package in found.values():
        try:
            workflows.append(describe_workflow(workflow, package, bigflow.workflow))
        except Exception as exception:
            _, file, line = PLACES[id(workflow)]
            described = describe_exception(exception, DIRECTORY)
            if isinstance(exception, Refused):
                described["exception"] = None
            described["file"] = described["file"] or os.path.join(DIRECTORY, file)
            described["line"] = described["line"] or line
            if isinstance(exception, Refused):
                described["file"], described["line"] = os.path.join(DIRECTORY, file), line
            return {"error": {"kind": "workflow", "workflow": str(workflow.workflow_id), **described}}
    return {"workflows": workflows}


RESULT = main()
RESULT["trace"] = trace()
answer(RESULT)
# Threads and exit handlers that the project's modules have set up are none of ours.
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
