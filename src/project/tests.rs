//! What the project's files mean, without Python.

use super::*;

fn no_python() -> Result<crate::python::Interpreter, PythonError> {
    Err(PythonError::NotFound)
}

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

fn load(text: &str) -> Result<LoadedConfig, ProjectError> {
    let directory = tempfile::tempdir().unwrap();
    DeploymentConfig::load(
        &write(directory.path(), "deployment_config.py", text),
        &no_python,
    )
}

#[test]
fn a_configuration_of_literals_needs_no_python() {
    let loaded = load(
        r#"
"""Where the project is deployed."""
from bigflow.configuration import DeploymentConfig
import bigflow as bf

PROJECT = "my-" + 'project'
common = dict(retries=3, **{"region": f"europe-{PROJECT}!"})

deployment_config = DeploymentConfig(
    name='dev',
    properties={
        **common,
        'docker_repository': 'registry.test/{env}' '/image',
        'dags_bucket': None,
        'flags': [True, -1, 2.5, ("a",)],
    },
    environment_variables_prefix="my_",
).add_configuration('prod', {'dags_bucket': 'prod-bucket'})
"#,
    )
    .unwrap();
    assert!(loaded.warnings.is_empty());
    let config = loaded.config;
    assert_eq!(config.environments(), ["dev", "prod"]);
    assert_eq!(config.prefix(), "my_");
    let prod = config.resolve(Some("prod"), &[]).unwrap();
    assert_eq!(
        prod.required("docker_repository"),
        Ok("registry.test/prod/image")
    );
    assert_eq!(prod.required("region"), Ok("europe-my-project!"));
    assert_eq!(prod.get("retries"), Some(&PropertyValue::Int(3)));
    assert_eq!(
        prod.text("flags").unwrap_err().to_string(),
        "property \"flags\" must be a text (str), but is a list"
    );
    let keys: Vec<_> = prod.properties().map(|(key, _)| key).collect();
    assert_eq!(
        keys,
        [
            "retries",
            "region",
            "docker_repository",
            "dags_bucket",
            "flags",
            "env"
        ]
    );
}

#[test]
fn the_spelling_of_the_old_documents_is_understood_with_a_warning() {
    let loaded = load(
        "from biggerquery import Config\ndeployment_config = Config(name='dev', properties={'a': 'b'})\\\n    .ad_configuration(name='prod', properties={})\n",
    )
    .unwrap();
    assert_eq!(loaded.config.environments(), ["dev", "prod"]);
    assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].contains("from bigflow import Config"));
}

#[test]
fn what_is_not_exactly_known_is_left_to_python() {
    for text in [
        "import os\nfrom bigflow import Config\ndeployment_config = Config('dev', {'a': os.environ['NOT_SET_ANYWHERE']})",
        "import os\nfrom bigflow import Config\ndeployment_config = Config('dev', dict(os.environ))",
        "import os\nfrom bigflow import Config\ndeployment_config = Config('dev', {'a': os.path.sep})",
        "from bigflow import Config\np = {}\ndeployment_config = Config('dev', {'a': p['absent']})",
        "from bigflow import Config\nimport my_module\ndeployment_config = Config('dev', {})",
        "from bigflow import Config\ndeployment_config = Config('dev', {'a': f'{1.5:.2f}'})",
        "from bigflow import Config\ndeployment_config = Config('dev', {'a': 'x'.upper()})",
        "from bigflow import Config\np = {}\np['a'] = 'b'\ndeployment_config = Config('dev', p)",
        "from bigflow import Config\ndeployment_config = Config('dev', {}, unknown=1)",
        "from bigflow import Config\nfor i in []:\n    pass\ndeployment_config = Config('dev', {})",
    ] {
        assert!(
            matches!(load(text), Err(ProjectError::Python(PythonError::NotFound))),
            "{text}"
        );
    }
}

#[test]
fn errors_name_the_place_without_starting_python() {
    let error = load(
        "from bigflow import Config\ndeployment_config = Config(\n    name='dev' properties={})\n",
    )
    .unwrap_err();
    let ProjectError::Syntax {
        line,
        column,
        message,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*line, *column), (3, 16));
    assert!(message.starts_with("invalid syntax: "), "{message}");

    let error = load("from bigflow import Config\nx = 1\ndeployment_config = (Config('dev', {})\n    .add_configuration('prod', {}, is_default=True))\n")
        .unwrap_err();
    assert!(
        matches!(
            error,
            ProjectError::Config {
                line: Some(3),
                source: ConfigError::SecondDefault { .. },
                ..
            }
        ),
        "{error}"
    );

    assert!(matches!(
        load("config = 1"),
        Err(ProjectError::NotAConfig { found: None, .. })
    ));
    assert!(matches!(
        load("deployment_config = {}"),
        Err(ProjectError::NotAConfig { found: Some(_), .. })
    ));
}

#[test]
fn a_project_is_read_from_setup_py_and_pyproject_toml() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    write(
        root,
        "setup.py",
        "#!/usr/bin/env python\nimport bigflow.build\n\nbigflow.build.setup(\n    name='my_project',\n    description=\"d\",\n    data_files=[('etc', ['a.txt'])],\n)\n",
    );
    write(
        root,
        "pyproject.toml",
        "[bigflow-project]\nname = 'other'\nresources_dir = 'res'\n[tool.forebay.dags]\nformat = 'bigflow-1.11'\n",
    );
    write(root, "my_project/__init__.py", "");
    write(root, "my_project/sub/__init__.py", "");
    let project = Project::open(&root.join("my_project/sub"), &no_python).unwrap();
    assert_eq!(project.directory, root.canonicalize().unwrap());
    let spec = &project.spec;
    assert_eq!(spec.name.as_str(), "my-project", "setup.py wins");
    assert_eq!(spec.resources_directory, "res");
    assert_eq!(spec.requirements_file, "resources/requirements.txt");
    assert_eq!(spec.packages, ["my_project", "my_project.sub"]);
    assert_eq!(spec.root_packages().collect::<Vec<_>>(), ["my_project"]);
    assert_eq!(spec.metadata["description"], "d");
    assert_eq!(
        spec.data_files,
        [("etc".to_owned(), vec!["a.txt".to_owned()])]
    );
    assert!(spec.export_image_tar);
    assert_eq!(project.settings.dags.format, DagFormat::Bigflow1_11);
}

#[test]
fn a_legacy_project_setup_is_read() {
    let directory = tempfile::tempdir().unwrap();
    write(
        directory.path(),
        "project_setup.py",
        "from bigflow.build import default_project_setup\n\nPROJECT_NAME = 'old_project'\n\nif __name__ == '__main__':\n    default_project_setup(PROJECT_NAME)\n",
    );
    let project = Project::open(directory.path(), &no_python).unwrap();
    assert_eq!(project.spec.name.as_str(), "old-project");
}

#[test]
fn a_project_without_a_name_or_with_an_unknown_setting_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "pyproject.toml", "[bigflow-project]\n");
    assert!(matches!(
        Project::open(directory.path(), &no_python),
        Err(ProjectError::NoName { .. })
    ));
    write(
        directory.path(),
        "pyproject.toml",
        "[tool.forebay]\ndag = 1\n",
    );
    let error = Project::open(directory.path(), &no_python)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("line 2") && error.contains("`dags`"),
        "{error}"
    );
}

#[test]
fn the_search_for_a_project_stays_in_the_repository() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "setup.py", "");
    let inner = directory.path().join("repository/folder");
    std::fs::create_dir_all(&inner).unwrap();
    assert_eq!(
        find_project_directory(&inner).unwrap(),
        directory.path().canonicalize().unwrap()
    );
    std::fs::create_dir(directory.path().join("repository/.git")).unwrap();
    assert!(matches!(
        find_project_directory(&inner),
        Err(ProjectError::NotFound { .. })
    ));
}

#[test]
fn environment_variables_are_read_in_every_spelling() {
    let home = std::env::var("HOME").unwrap();
    let loaded = load(
        "import os\nfrom os import environ, getenv as ask\nfrom bigflow import Config\n\
         common = {'user': ask('NOT_SET_ANYWHERE', default='nobody')}\n\
         deployment_config = Config('dev', {\n\
             'a': os.environ['HOME'], 'b': f\"{environ.get('HOME')}/x\", 'c': os.getenv('HOME', 'd'),\n\
             'e': os.environ.get('NOT_SET_ANYWHERE', 'default'), 'f': common['user'],\n\
         })\n",
    )
    .unwrap();
    assert_eq!(
        loaded.variables,
        [
            "NOT_SET_ANYWHERE",
            "HOME",
            "HOME",
            "HOME",
            "NOT_SET_ANYWHERE"
        ]
    );
    let dev = loaded.config.resolve(None, &[]).unwrap();
    let expected = [
        ("a", home.clone()),
        ("b", format!("{home}/x")),
        ("c", home),
        ("e", "default".to_owned()),
        ("f", "nobody".to_owned()),
    ];
    for (key, value) in expected {
        assert_eq!(dev.required(key), Ok(value.as_str()), "{key}");
    }
    let unset = load("import os\nfrom bigflow import Config\ndeployment_config = Config('dev', {'a': os.getenv('NOT_SET_ANYWHERE')})").unwrap();
    assert!(unset.config.resolve(None, &[]).is_err(), "it is None");
}

#[test]
fn what_python_says_is_remembered_until_something_changes_that_it_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let project = directory.path().join("project");
    let helper = write(&project, "helper.py", "NAME = 'one'\n");
    let path = write(
        &project,
        "deployment_config.py",
        "import helper\nfrom bigflow import Config\ndeployment_config = Config('dev', {'a': helper.NAME})\n",
    );
    let find = || crate::python::find(None, directory.path(), &store);
    // The script itself counts how often it is run.
    let log = project.join("log");
    std::fs::write(
        &helper,
        format!(
            "NAME = 'one'\nwith open({:?}, 'a') as log:\n    log.write('x')\n",
            log.to_str().unwrap()
        ),
    )
    .unwrap();
    let runs = || std::fs::read_to_string(&log).map_or(0, |text| text.len());
    let settle = |file: &Path| {
        // A file that has just been written might change again unseen.
        let written = file.metadata().unwrap().modified().unwrap();
        while written.elapsed().unwrap_or_default() < std::time::Duration::from_millis(30) {
            std::thread::yield_now();
        }
    };
    let load = || {
        let loaded = DeploymentConfig::load_remembered(&path, &find, Some(&store)).unwrap();
        let dev = loaded.config.resolve(None, &[]).unwrap();
        dev.required("a").unwrap().to_owned()
    };
    settle(&helper);
    assert_eq!((load(), runs()), ("one".to_owned(), 1));
    assert_eq!((load(), runs()), ("one".to_owned(), 1));
    let text = std::fs::read_to_string(&helper).unwrap();
    std::fs::write(&helper, text.replace("'one'", "'two'")).unwrap();
    settle(&helper);
    assert_eq!((load(), runs()), ("two".to_owned(), 2));
    assert_eq!((load(), runs()), ("two".to_owned(), 2));

    // What a variable holds may be a secret: such an answer is not kept.
    write(
        &project,
        "deployment_config.py",
        "import helper, os\nfrom bigflow import Config\ndeployment_config = Config('dev', {'a': os.environ['HOME'].upper()})\n",
    );
    settle(&path);
    load();
    load();
    assert_eq!(runs(), 4);
}
