//! Whole images: what stands in them, and that it is the same everywhere.

use std::process::{Command, Stdio};

use super::super::*;
use super::*;
use crate::oci::ImageManifest;
use crate::progress::Event;

/// Keeps the warnings.
#[derive(Default)]
struct Warnings(std::sync::Mutex<Vec<String>>);

impl Progress for Warnings {
    fn report(&self, event: Event) {
        if let Event::Warning(text) = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

#[test]
fn the_same_sources_give_the_same_image_everywhere() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_project(one.path());
    let (_first, first_store) = new_store();
    let first = build_image(one.path(), &first_store);

    // Another folder, store, order of writing and time.
    let mut files: Vec<_> = first_store.scan(one.path(), &|_, _| false).unwrap().entries;
    files.reverse();
    for entry in files {
        let text = std::fs::read_to_string(one.path().join(&entry.path)).unwrap();
        write(two.path(), &entry.path, &text);
        let file = std::fs::File::open(two.path().join(&entry.path)).unwrap();
        let then = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(86_400);
        file.set_modified(then).unwrap();
    }
    let (_second, second_store) = new_store();
    let second = build_image(two.path(), &second_store);
    assert_eq!(first.digest(), second.digest());
    assert_eq!(first.manifest().bytes, second.manifest().bytes);
    assert_eq!(first.config().bytes(), second.config().bytes());
}

#[test]
fn a_password_in_a_requirement_is_warned_of_and_kept_out_of_what_is_written() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let base = BaseImage::scratch(3, 11, Platform::LinuxAmd64);
    let path = "resources/requirements.txt";
    write(
        project.path(),
        path,
        "some @ https://user:hunter2@host.test/some.zip\n",
    );
    let warnings = Warnings::default();
    let image = build_on(
        &base,
        &WheelSet::default(),
        project.path(),
        &store,
        &warnings,
    )
    .unwrap();
    let said = warnings.0.into_inner().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(path) && said[0].contains("${VARIABLE}"));
    assert!(!said[0].contains("hunter2"));
    let layer = gunzip(&bytes_of(&store, image.layers().last().unwrap()));
    let files = entries(&layer);
    let pyproject = files
        .iter()
        .find(|(path, _)| path.ends_with("bigflow__project/hello-world/pyproject.toml"));
    let (_, text) = pyproject.unwrap();
    assert!(text.contains("https://host.test/some.zip"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");

    write(
        project.path(),
        path,
        "some @ https://user:${PASSWORD}@host.test/some.zip\n",
    );
    let warnings = Warnings::default();
    build_on(
        &base,
        &WheelSet::default(),
        project.path(),
        &store,
        &warnings,
    )
    .unwrap();
    assert_eq!(warnings.0.into_inner().unwrap(), [""; 0]);
}

#[test]
fn wheels_for_glibc_are_refused_on_musl() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let mut base = BaseImage::scratch(3, 11, Platform::LinuxAmd64);
    base.python.is_musl = true;
    let wheel = WheelBuilder::new("some").file("some/__init__.py", b"y = 2\n");
    let mut wheels = lock(&store, &[&wheel]);
    assert!(build_on(&base, &wheels, project.path(), &store, &Silent).is_ok());
    let name = "some-1.0-cp311-cp311-manylinux_2_17_x86_64.whl";
    wheels.wheels[0].file_name = name.parse().unwrap();
    let refused = build_on(&base, &wheels, project.path(), &store, &Silent).unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains("musl") && refused.contains(name),
        "{refused}"
    );
    wheels.wheels[0].file_name = "some-1.0-cp311-cp311-musllinux_1_2_x86_64.whl"
        .parse()
        .unwrap();
    assert!(build_on(&base, &wheels, project.path(), &store, &Silent).is_ok());
}

#[test]
fn a_directory_says_of_itself_what_its_own_line_says() {
    let project = tempfile::tempdir().unwrap();
    let (_directory, store) = new_store();
    let tree = store.scan(project.path(), &|_, _| false).unwrap();
    let context = BuildContext {
        directory: project.path(),
        tree: &tree,
    };
    for line in ["WORKDIR /srv/app", "WORKDIR app"] {
        let layer = copy_layer::directory("srv/app", line, &context, &store).unwrap();
        assert_eq!(layer.unwrap().created_by, line);
    }
}

#[test]
fn a_change_replaces_the_layer_it_touches() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let layers = |image: &BuiltImage| -> Vec<Sha256Digest> {
        image.layers().iter().map(|l| l.descriptor.digest).collect()
    };
    let first = build_image(project.path(), &store);

    // What is in no wheel changes nothing.
    write(project.path(), "README.md", "another text\n");
    let same = build_image(project.path(), &store);
    assert_eq!(first.digest(), same.digest());

    write(project.path(), "hello_world/jobs/work.py", "x = 2\n");
    let changed = build_image(project.path(), &store);
    assert_ne!(first.digest(), changed.digest());
    let (before, after) = (layers(&first), layers(&changed));
    assert_eq!(before.len(), after.len());
    let differing = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert_eq!(differing, 1);
    assert_ne!(before.last(), after.last());
}

#[test]
fn the_configuration_names_every_layer() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let image = build_image(project.path(), &store);
    let manifest: ImageManifest = serde_json::from_slice(&image.manifest().bytes).unwrap();
    assert_eq!(
        manifest.config.digest,
        Sha256Digest::of(image.config().bytes())
    );
    let config: serde_json::Value = serde_json::from_slice(image.config().bytes()).unwrap();
    let diff_ids: Vec<String> =
        serde_json::from_value(config["rootfs"]["diff_ids"].clone()).unwrap();
    let expected: Vec<String> = image
        .layers()
        .iter()
        .map(|l| l.diff_id.to_string())
        .collect();
    assert_eq!(diff_ids, expected);
    assert_eq!(config["history"].as_array().unwrap().len(), expected.len());
    assert_eq!(config["config"]["WorkingDir"], "/app");
    assert_eq!(config["created"], "1980-01-01T00:00:01Z");
    for layer in image.layers() {
        let tar = gunzip(&bytes_of(&store, layer));
        assert_eq!(Sha256Digest::of(&tar), layer.diff_id);
    }
    assert_eq!(manifest.layers.len(), expected.len());
}

#[test]
fn the_systems_tar_and_gzip_read_every_layer() {
    let project = tempfile::tempdir().unwrap();
    write_project(project.path());
    let (_directory, store) = new_store();
    let image = build_image(project.path(), &store);
    let root = tempfile::tempdir().unwrap();
    for layer in image.layers() {
        let path = root.path().join("layer.tar.gz");
        std::fs::write(&path, bytes_of(&store, layer)).unwrap();
        let unpacked = Command::new("tar")
            .args(["--warning=all", "--no-same-owner", "-xzf"])
            .arg(&path)
            .arg("-C")
            .arg(root.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&unpacked.stderr);
        assert!(unpacked.status.success() && errors.is_empty(), "{errors}");
    }
    let site = root.path().join("usr/local/lib/python3.11/site-packages");
    assert_eq!(
        std::fs::read_to_string(site.join("some/__init__.py")).unwrap(),
        "y = 2\n"
    );
    assert!(site.join("hello_world/jobs/work.py").is_file());
    assert!(root.path().join("app/requirements.txt").is_file());
}

#[test]
fn the_first_difference_of_two_builds_is_named() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_project(one.path());
    write_project(two.path());
    let ((_first, first), (_second, second)) = (new_store(), new_store());
    let built = build_image(one.path(), &first);
    let same = build_image(two.path(), &second);
    assert_eq!(
        first_difference((&built, &first), (&same, &second)).unwrap(),
        None
    );
    write(two.path(), "hello_world/jobs/work.py", "x = 9\n");
    let other = build_image(two.path(), &second);
    let difference = first_difference((&built, &first), (&other, &second)).unwrap();
    let difference = difference.unwrap();
    assert!(
        difference.contains("bf-project.tar") && difference.contains("pip install hello-world"),
        "{difference}"
    );
}
