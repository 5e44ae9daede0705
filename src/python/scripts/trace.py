# Notes what the project's code reads: files of the project and of others, but not the
# interpreter's own, and environment variables. The names go into the answer, see
# trace(); the values never do.
import importlib._bootstrap_external as bootstrap
import re

DIRECTORY = REQUEST["directory"]
FILES, DIRECTORIES, LOOKED_UP = set(), set(), set()
VARIABLES, PREFIXES = set(), set()
ALL_VARIABLES = False
# Whether another program was started: what that read is not known.
STARTED_PROCESS = False
# The variables that the project's own code read, and not a library.
READ_BY_PROJECT = set()

# What belongs to the interpreter is known by its packages' versions.
IMPORT_PATHS = REQUEST.get("import_paths", [])
INTERPRETER = interpreter_inside(DIRECTORY) + [path for path in IMPORT_PATHS if is_inside(path, DIRECTORY)]
# Not the whole prefix, which may be /usr with the project's neighbours in /usr/src, and not
# sys.path, which has the folders of PYTHONPATH and of editable installs.
PREFIXES_OF_PYTHON = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
TEMPORARY = os.path.abspath(os.environ.get("TMPDIR") or "/tmp")
SYSTEM = [
    *(os.path.join(prefix, part) for prefix in PREFIXES_OF_PYTHON for part in ("bin", "include", "lib", "lib64", "share")),
    *(os.path.join(prefix, "pyvenv.cfg") for prefix in PREFIXES_OF_PYTHON),
    *(os.path.abspath(path) for path in IMPORT_PATHS),
    *("/proc", "/sys", "/dev", "/usr/lib", "/usr/share"),
    os.path.dirname(os.path.abspath(os.__file__)),
    os.path.dirname(os.path.abspath(__file__)),
    # A scratch file is no input; but where the project is in there, so are its neighbours.
    *([] if is_inside(DIRECTORY, TEMPORARY) else [TEMPORARY]),
]
SYSTEM_FOLDERS = tuple(place.rstrip(os.sep) + os.sep for place in SYSTEM)
PACKAGES = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
# Paths outside the project that a trace has at most: more are not worth looking at each time.
MOST_OUTSIDE = 2000


def project_path(path):
    """The path relative to the project's directory, or None if it is not of the project."""
    if path is None or isinstance(path, int):
        return None
    try:
        path = os.fsdecode(path)
        path = os.path.normpath(path if os.path.isabs(path) else os.path.join(os.getcwd(), path))
    except (TypeError, ValueError, OSError):
        return None
    if path == DIRECTORY:
        return "."
    if not is_inside(path, DIRECTORY):
        return None
    for place in INTERPRETER:
        if path == place or is_inside(path, place):
            return None
    relative = path[len(DIRECTORY.rstrip(os.sep)) + 1 :].replace(os.sep, "/")
    parts = relative.split("/")
    if "__pycache__" in parts or "site-packages" in parts or relative.endswith(".pyc"):
        return None
    return relative


def traced_path(path):
    """The path as it goes into the trace: of the project, or absolute if it is neither of the project
    nor of the interpreter."""
    relative = project_path(path)
    if relative is not None or path is None or isinstance(path, int):
        return relative
    try:
        path = os.path.normpath(os.path.join(os.getcwd(), os.fsdecode(path)))
    except (TypeError, ValueError, OSError):
        return None
    if path == DIRECTORY or is_inside(path, DIRECTORY) or path.endswith(".pyc"):
        return None
    if (path + os.sep).startswith(SYSTEM_FOLDERS) or any(name in path + os.sep for name in PACKAGES):
        return None
    return path


def note_reader(name):
    frame = sys._getframe(2)
    own = ("os.py", "_collections_abc.py", "<frozen os>", "<frozen _collections_abc>")
    while frame is not None and os.path.basename(frame.f_code.co_filename) in own:
        frame = frame.f_back
    if frame is not None and project_path(frame.f_code.co_filename) is not None:
        READ_BY_PROJECT.add(name)


def called_by_import():
    frame = sys._getframe(2)
    return frame is not None and frame.f_code.co_filename.startswith("<frozen importlib")


def audit(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes_only = isinstance(flags, int) and flags & os.O_ACCMODE == os.O_WRONLY
        if not writes_only:
            FILES.add(traced_path(path))
    elif event in ("os.listdir", "os.scandir"):
        # The import system lists the folders of sys.path; the request has the modules.
        if not called_by_import():
            DIRECTORIES.add(traced_path(arguments[0] if arguments[0] is not None else "."))
    elif event == "import":
        FILES.add(traced_path(arguments[1]))
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"):
        global STARTED_PROCESS
        STARTED_PROCESS = True


def watch_lookups():
    """Files whose existence alone was asked for: no audit event tells of them."""
    original = os.stat

    # An object, not a function: older versions of pathlib keep it as a class attribute,
    # where a function would become a method.
    class Stat:
        def __call__(self, path, *args, **kwargs):
            LOOKED_UP.add(traced_path(path))
            return original(path, *args, **kwargs)

    stat = Stat()
    for features in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if original in features:
            features.add(stat)
    os.stat = stat
    accessor = getattr(sys.modules.get("pathlib"), "_NormalAccessor", None)
    if accessor is not None:
        accessor.stat = stat


def watch_variables():
    environ_class = type(os.environ)

    class WatchedEnvironment(environ_class):
        def __getitem__(self, key):
            VARIABLES.add(key)
            note_reader(key)
            return super().__getitem__(key)

        def __iter__(self):
            global ALL_VARIABLES
            ALL_VARIABLES = True
            note_reader("*")
            return super().__iter__()

        def keys_unwatched(self):
            return list(environ_class.__iter__(self))

        def with_prefix(self, prefix):
            PREFIXES.add(prefix)
            return {
                key[len(prefix) :]: environ_class.__getitem__(self, key)
                for key in self.keys_unwatched()
                if key.startswith(prefix)
            }

    os.environ.__class__ = WatchedEnvironment


def without_bytecode_of_the_project():
    """Reads the project's sources and its neighbours', not their .pyc files.

    Those are told apart from stale ones by second and size only, which an edit
    right after a run does not change.
    """
    original = bootstrap.cache_from_source

    def cache_from_source(path, *args, **kwargs):
        if traced_path(path) is not None:
            raise NotImplementedError("sources of the project are not cached")
        return original(path, *args, **kwargs)

    bootstrap.cache_from_source = cache_from_source


def begin_trace():
    sys.addaudithook(audit)
    watch_lookups()
    watch_variables()
    without_bytecode_of_the_project()


# What code says that asks for local time, in one way or another.
LOCAL_TIME = re.compile(
    r"\b(now|today|localtime|ctime|asctime|mktime|strftime|fromtimestamp|timestamp|astimezone|tz\w*|timezone|altzone|daylight|get_localzone)\b"
)


def asks_for_local_time(files):
    """Whether the project's own code may have looked at the clock in the local time zone."""
    for path in files:
        if os.path.isabs(path) or not path.endswith(".py"):
            continue
        try:
            with open(os.path.join(DIRECTORY, path), encoding="utf-8", errors="replace") as source:
                if LOCAL_TIME.search(source.read()):
                    return True
        except OSError:
            return True
    return False


def trace():
    # A scratch file of somebody's is gone by now.
    files = {path for path in FILES if path and (not os.path.isabs(path) or os.path.isfile(path))}
    directories = {path for path in DIRECTORIES if path}
    looked_up = {path for path in LOOKED_UP if path}
    outside = [path for path in (*files, *directories, *looked_up) if os.path.isabs(path)]
    incomplete = len(outside) > MOST_OUTSIDE
    if incomplete:
        files, directories, looked_up = (paths.difference(outside) for paths in (files, directories, looked_up))
    return {
        "files": sorted(files),
        "directories": sorted(directories),
        "looked_up": sorted(looked_up),
        "incomplete": incomplete,
        "variables": sorted(name for name in VARIABLES if isinstance(name, str)),
        "prefixes": sorted(PREFIXES),
        "all_variables": ALL_VARIABLES,
        "time_zone_matters": asks_for_local_time(files),
        "started_process": STARTED_PROCESS,
        "read_by_project": sorted(name for name in READ_BY_PROJECT if isinstance(name, str)),
    }
