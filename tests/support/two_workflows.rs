//! A project that is soon built and has DAG files.

use std::path::Path;

/// A project of two workflows that needs nothing to be built, for a BigFlow that is installed.
pub(crate) fn example() -> tempfile::TempDir {
    let project = tempfile::tempdir().unwrap();
    for (name, text) in [
        (
            "Dockerfile",
            "FROM python:3.11-slim\nWORKDIR /app\nCOPY ./dist dist\nRUN pip install dist/*.whl\n",
        ),
        ("resources/requirements.txt", ""),
        (
            "setup.py",
            "import bigflow.build\n\nbigflow.build.setup(name='flow')\n",
        ),
        (
            "pyproject.toml",
            "[tool.forebay.environments.local]\nbase = 'scratch'\npython = '3.11'\n",
        ),
        (
            "deployment_config.py",
            "from bigflow import Config\n\ndeployment_config = Config('local', {\n    'docker_repository': 'oci:.local/images',\n    'dags_bucket': 'file://.local/composer',\n})\n",
        ),
        ("flow/__init__.py", ""),
    ] {
        let path = project.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    for workflow in ["daily", "hourly"] {
        add(project.path(), workflow);
    }
    project
}

/// Adds a workflow.
fn add(project: &Path, workflow: &str) {
    let text = format!(
        "import bigflow\n\nclass PrintJob(bigflow.Job):\n    def execute(self, context):\n        print('hello')\n\n\
         workflow = bigflow.Workflow(workflow_id='{workflow}', definition=[PrintJob('print')])\n"
    );
    std::fs::write(project.join(format!("flow/{workflow}.py")), text).unwrap();
}

/// The code is in the image, so all files change: one is new, two are replaced.
pub(crate) fn change(project: &Path) {
    add(project, "extra");
}
