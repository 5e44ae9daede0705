# What an interpreter says about itself.
import importlib.util
import site
import sysconfig

try:
    from importlib import metadata
except ImportError:
    metadata = None


def bigflow_version():
    if importlib.util.find_spec("bigflow") is None:
        return None
    try:
        return metadata.version("bigflow")
    except Exception:
        return "unknown"


def modified(path):
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


places = sorted({os.path.abspath(path) for path in [*sys.path, site.getusersitepackages()]})
# Before they are listed: a later change is then seen.
watched = [[path, modified(path)] for path in places]
installed = set()
for path in places:
    if path in map(os.path.abspath, sys.path) and os.path.isdir(path):
        installed.update(
            os.path.splitext(name)[0] for name in os.listdir(path) if name.endswith((".dist-info", ".egg-info"))
        )

answer(
    {
        "interpreter": {
            "executable": os.path.abspath(sys.executable),
            "version": {"major": sys.version_info[0], "minor": sys.version_info[1], "micro": sys.version_info[2]},
            "platform": sysconfig.get_platform(),
            "bigflow": bigflow_version(),
            "installed": sorted(installed),
        },
        "watched": watched,
    }
)
