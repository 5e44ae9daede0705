//! The layer of the project itself.

use super::super::*;
use super::*;

#[test]
fn the_project_layer_is_what_pip_would_leave() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let image = build_image(project.path(), &store);
    let layer = image.layers().last().unwrap();
    let files = entries(&gunzip(&bytes_of(&store, layer)));
    let version = files
        .keys()
        .find_map(|path| {
            path.split_once("hello_world-0+t")?
                .1
                .split_once(".dist-info")
        })
        .unwrap()
        .0
        .to_owned();
    assert_eq!(version.len(), 12);
    let paths: Vec<String> = files
        .keys()
        .filter(|path| !path.ends_with('/'))
        .map(|path| path.replace(&version, "V"))
        .collect();
    assert_eq!(
        paths,
        [
            "usr/local/bigflow__project/hello-world/bf-project.tar",
            "usr/local/bigflow__project/hello-world/pyproject.toml",
            "usr/local/bin/hello",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/INSTALLER",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/METADATA",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/RECORD",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/WHEEL",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/entry_points.txt",
            "usr/local/lib/python3.11/site-packages/hello_world-0+tV.dist-info/top_level.txt",
            "usr/local/lib/python3.11/site-packages/hello_world/__init__.py",
            "usr/local/lib/python3.11/site-packages/hello_world/data.json",
            "usr/local/lib/python3.11/site-packages/hello_world/jobs/__init__.py",
            "usr/local/lib/python3.11/site-packages/hello_world/jobs/work.py",
            "usr/local/resources/query.sql",
            "usr/local/resources/requirements.txt",
        ]
    );
    let metadata = files
        .iter()
        .find(|(path, _)| path.ends_with("METADATA"))
        .unwrap()
        .1;
    assert_eq!(
        metadata.replace(&version, "V"),
        "Metadata-Version: 2.1\nName: hello-world\nVersion: 0+tV\nAuthor: somebody\nRequires-Dist: some==1.0\n\n"
    );
    let pyproject = &files["usr/local/bigflow__project/hello-world/pyproject.toml"];
    let pyproject: toml::Table = pyproject.parse().unwrap();
    let specification = &pyproject["bigflow-project"];
    assert_eq!(specification["name"].as_str(), Some("hello-world"));
    assert_eq!(specification["requries"][0].as_str(), Some("some==1.0"));
    assert_eq!(
        specification["docker_repository"].as_str(),
        Some("registry.test/hello")
    );
    assert_eq!(
        pyproject["build-system"]["requires"][0].as_str(),
        Some("bigflow==1.11.3")
    );
}

#[test]
fn the_source_archive_has_what_bigflows_sdist_has() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let image = build_image(project.path(), &store);
    let tar = gunzip(&bytes_of(&store, image.layers().last().unwrap()));
    let mut archive = ::tar::Archive::new(tar.as_slice());
    let mut inner = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("bf-project.tar") {
            entry.read_to_end(&mut inner).unwrap();
        }
    }
    let names: Vec<String> = entries(&inner)
        .into_keys()
        .filter_map(|path| Some(path.split_once('/')?.1.to_owned()))
        .filter(|path| !path.is_empty() && !path.ends_with('/'))
        .collect();
    assert_eq!(
        names,
        [
            "Dockerfile",
            "PKG-INFO",
            "deployment_config.py",
            "hello_world/__init__.py",
            "hello_world/data.json",
            "hello_world/jobs/__init__.py",
            "hello_world/jobs/work.py",
            "pyproject.toml",
            "resources/requirements.txt",
            "resources/sub/query.sql",
            "setup.py",
            "test/test_work.py",
        ]
    );
}

#[test]
fn a_file_that_changes_while_it_is_read_fails_the_build() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let tree = store.scan(project.path(), &|_, _| false).unwrap();
    write(project.path(), "hello_world/jobs/work.py", "x = 3\n");
    let context = BuildContext {
        directory: project.path(),
        tree: &tree,
    };
    let parts = parts();
    let error = project_layer::build(&source(&parts), &context, &scheme(), None, &store, &Silent)
        .unwrap_err();
    assert!(format!("{error}").contains("work.py"), "{error}");
}

#[test]
fn what_only_setuptools_knows_is_refused() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let tree = store.scan(project.path(), &|_, _| false).unwrap();
    let context = BuildContext {
        directory: project.path(),
        tree: &tree,
    };
    let mut parts = parts();
    parts
        .setuptools
        .insert("ext_modules".to_owned(), serde_json::json!(["x"]));
    let error = project_layer::build(&source(&parts), &context, &scheme(), None, &store, &Silent)
        .unwrap_err();
    assert!(error.to_string().contains("ext_modules"), "{error}");
}

#[test]
fn links_that_lead_nowhere_are_named() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    for (target, problem) in [
        ("/etc/passwd", "an absolute path"),
        ("../outside.sql", "has no file"),
        ("gone.sql", "has no file"),
    ] {
        let link = project.path().join("resources/link.sql");
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        let base = BaseImage::scratch(3, 11, Platform::LinuxAmd64);
        let refused =
            build_on(&base, &WheelSet::default(), project.path(), &store, &Silent).unwrap_err();
        let refused = refused.to_string();
        assert!(
            refused.contains("resources/link.sql")
                && refused.contains(target)
                && refused.contains(problem),
            "{refused}"
        );
    }
}
