//! A project that needs no package index, no base image and no BigFlow.

use std::path::Path;

/// Writes a project `small` with the environments `dev` and `prod`, whose images stand on no
/// base at all. Repositories and buckets are what the command line says.
pub(crate) fn small_project(directory: &Path) {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "Dockerfile",
        "FROM scratch\nWORKDIR /app\nCOPY ./data data\nCOPY ./more more\nCOPY ./dist dist\nRUN pip install dist/*.whl\n",
    );
    write("data/numbers", &"0123456789".repeat(1_000));
    write("more/letters", &"abcdefgh".repeat(1_000));
    write("resources/requirements.txt", "");
    write(
        "setup.py",
        "import bigflow.build\n\nbigflow.build.setup(name='small')\n",
    );
    write(
        "deployment_config.py",
        "from bigflow import Config\n\ndeployment_config = Config('dev', {}).add_configuration('prod', {})\n",
    );
    write(
        "pyproject.toml",
        "[tool.forebay.environments.dev]\npython = '3.11'\n\n[tool.forebay.environments.prod]\npython = '3.11'\n",
    );
    write("small/__init__.py", "");
    write("small/jobs.py", "def run():\n    return 42\n");
}
