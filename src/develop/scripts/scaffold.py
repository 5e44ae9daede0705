# Lets BigFlow's own scaffold make a project. Follows common.py.
import pathlib
import re

try:
    import bigflow.build.pip

    # The requirements are compiled by whoever asks for this, and told apart from the scaffold.
    bigflow.build.pip.pip_compile = lambda *arguments, **keywords: None
    from bigflow.scaffold import start_project

    start_project(
        is_basic=True,
        project_name=REQUEST["name"],
        projects_id=[REQUEST["gcp_project"]],
        composers_bucket=[REQUEST["dags_bucket"]],
        envs=[],
        pyspark_job=True,
    )
    mended = []
    folder = pathlib.Path(REQUEST["name"] + "_project")
    # BigFlow 1.11 writes an argument that its own Workflow has no longer.
    if "log_config" not in bigflow.Workflow.__init__.__code__.co_varnames:
        for path in sorted(folder.rglob("*.py")):
            text = path.read_text()
            kept = re.sub(r"^    log_config=\{.*?^    \},\n", "", text, flags=re.S | re.M)
            if kept != text:
                path.write_text(kept)
                mended.append(str(path))
    answer({"mended": mended})
except Exception as error:
    answer({"failed": describe_exception(error, os.getcwd())})
