# Runs a deployment_config.py that is more than literals.
import importlib.machinery
import importlib.util
import types

PATH = REQUEST["path"]
WARNINGS = []


def without_bigflow():
    """The part of BigFlow that a configuration needs, where BigFlow is not installed."""

    class Config:
        def __init__(self, name, properties, is_master=True, is_default=True):
            self.master_properties = properties if is_master else {}
            self.default_env_name = None
            self.configs = {}
            self.environment_variables_prefix = "bf_"
            self.add_configuration(name, properties, is_default)

        def add_configuration(self, name, properties, is_default=False):
            merged = dict(self.master_properties)
            merged.update(properties)
            assert "env" not in properties or properties["env"] == name
            merged["env"] = name
            self.configs[name] = merged
            if is_default:
                if self.default_env_name:
                    raise ValueError(
                        "default env is already set to %r, you can set only one default env"
                        % self.default_env_name
                    )
                self.default_env_name = name
            return self

    class DeploymentConfig(Config):
        def __init__(self, name, properties, is_master=True, is_default=True, environment_variables_prefix=None):
            super().__init__(name, properties, is_master, is_default)
            self.environment_variables_prefix = environment_variables_prefix or "bf_"

    package = types.ModuleType("bigflow")
    package.__path__ = []
    module = types.ModuleType("bigflow.configuration")
    package.configuration = module
    for owner in (package, module):
        owner.Config = Config
        owner.DeploymentConfig = DeploymentConfig
    sys.modules["bigflow"] = package
    sys.modules["bigflow.configuration"] = module


def ad_configuration(self, *args, **kwargs):
    WARNINGS.append("`ad_configuration` was never released under this name: write `add_configuration`")
    return self.add_configuration(*args, **kwargs)


class OldName(importlib.machinery.PathFinder):
    """Finds `biggerquery`, the name that old documents teach, as `bigflow`."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name not in ("biggerquery", "biggerquery.configuration"):
            return None
        WARNINGS.append(
            "`biggerquery` was never released under this name: write `from bigflow import Config`"
        )
        new = importlib.import_module(name.replace("biggerquery", "bigflow"))

        class Loader:
            def create_module(self, spec):
                return types.ModuleType(name)

            def exec_module(self, module):
                module.__dict__.update(
                    (key, value) for key, value in vars(new).items() if not key.startswith("__")
                )

        return importlib.machinery.ModuleSpec(name, Loader(), is_package=name == "biggerquery")


def main():
    sys.path.insert(0, DIRECTORY)
    begin_trace()
    try:
        if importlib.util.find_spec("bigflow") is None:
            without_bigflow()
        import bigflow.configuration

        bigflow.configuration.Config.ad_configuration = ad_configuration
        sys.meta_path.append(OldName)
        spec = importlib.util.spec_from_file_location("deployment_config", PATH)
        module = importlib.util.module_from_spec(spec)
        sys.dont_write_bytecode = True
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exception:
        answer({"error": describe_exception(exception, DIRECTORY)})
        return
    config = getattr(module, "deployment_config", None)
    if not isinstance(config, bigflow.configuration.Config):
        found = type(config).__name__ if hasattr(module, "deployment_config") else None
        answer({"not_a_config": {"type_name": found}})
        return
    answer(
        {
            "config": {
                "master": encode(dict(config.master_properties))["value"],
                "environments": [
                    [str(name), encode(dict(properties))["value"]] for name, properties in config.configs.items()
                ],
                "default": config.default_env_name,
                "prefix": config.environment_variables_prefix,
            },
            "warnings": WARNINGS,
            "trace": trace(),
        }
    )


main()
