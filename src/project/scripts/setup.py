# Runs a setup.py that is more than literals, and takes the arguments of
# `bigflow.build.setup` as BigFlow itself does: its dump parameter.
import importlib.util
import pickle
import runpy
import tempfile
import types

PATH = REQUEST["path"]
DUMP_PARAMETER = "__bigflow_dump_params"


class Captured(BaseException):
    """Carries the arguments out of setup.py where BigFlow is not installed."""


def without_bigflow():
    def setup(project_dir=None, **parameters):
        raise Captured(parameters)

    def auto_configuration(project_name, project_dir=None, **parameters):
        return {"project_name": project_name, **parameters}

    def project_setup(project_name, project_dir=None, **parameters):
        raise Captured({"name": project_name, **parameters})

    package = types.ModuleType("bigflow")
    package.__path__ = []
    module = types.ModuleType("bigflow.build")
    module.setup = setup
    module.auto_configuration = auto_configuration
    module.project_setup = module.default_project_setup = project_setup
    package.build = module
    sys.modules["bigflow"] = package
    sys.modules["bigflow.build"] = module


def main():
    sys.path.insert(0, DIRECTORY)
    sys.dont_write_bytecode = True
    begin_trace()
    parameters = None
    with tempfile.TemporaryDirectory() as scratch:
        dump = os.path.join(scratch, "parameters")
        sys.argv = [PATH, DUMP_PARAMETER, dump]
        try:
            if importlib.util.find_spec("bigflow") is None:
                without_bigflow()
            runpy.run_path(PATH, run_name="__main__")
        except Captured as captured:
            parameters = captured.args[0]
        except SystemExit as exception:
            if not os.path.exists(dump):
                return {"error": describe_exception(exception, DIRECTORY)}
        except Exception as exception:
            return {"error": describe_exception(exception, DIRECTORY)}
        if os.path.exists(dump):
            with open(dump, "rb") as file:
                parameters = pickle.load(file)
    if parameters is None:
        return {"setup": {"parameters": None}, "trace": trace()}
    return {
        "setup": {"parameters": [[str(key), encode(value)] for key, value in parameters.items()]},
        "trace": trace(),
    }


answer(main())
