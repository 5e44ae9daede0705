//! How many requests a push costs, counted in the registry's own access log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/images.rs"]
mod images;
#[path = "support/open.rs"]
mod open;

use std::sync::{Arc, Mutex};

use docker_registry::DockerRegistry;
use forebay::oci::{BlobSource, BytesBlob, Descriptor, Repository, Tag};
use forebay::progress::{Event, Phase, Progress, Silent};
use forebay::registry::{ManifestName, PushReport, RegistryError, push};
use images::{image, image_of};

fn tags(names: &[&str]) -> Vec<Tag> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

/// Keeps what is reported.
#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Progress for Recorder {
    fn report(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

#[tokio::test]
async fn a_push_costs_what_changed() {
    let Some(server) = DockerRegistry::start() else {
        return;
    };
    let name = format!("{}/project", server.address());
    let before = image(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    let digest = before.manifest.descriptor.digest;
    let mut seen = 0;
    let mut requests = || {
        let all = server.requests();
        let new = all[seen..].to_vec();
        seen = all.len();
        new
    };
    // A new client every time: what it has learnt must not be what makes it cheap.
    let client = || open::repository(&name, Vec::new());

    let report = push(&*client(), &before, &tags(&["1"]), None, &Silent)
        .await
        .unwrap();
    assert_eq!(report.uploaded.len(), 9);
    let first = requests();
    assert!(first.len() <= 2 * 9 + 3, "{first:#?}");

    // Unchanged, known by its tag or by what the caller knows is live.
    for (tags, previous) in [(tags(&["1"]), None), (tags(&[]), Some(&digest))] {
        let report = push(&*client(), &before, &tags, previous, &Silent)
            .await
            .unwrap();
        let unchanged = PushReport {
            present: 9,
            ..PushReport::default()
        };
        assert_eq!(report, unchanged);
        let requests = requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        assert!(requests[0].starts_with("HEAD"), "{requests:#?}");
    }

    push(&*client(), &before, &tags(&["2"]), Some(&digest), &Silent)
        .await
        .unwrap();
    assert_eq!(requests().len(), 2);

    let after = image(&["a", "b", "c", "d", "e", "f", "g", "changed"]);
    let recorder = Recorder::default();
    let report = push(&*client(), &after, &tags(&["3"]), Some(&digest), &recorder)
        .await
        .unwrap();
    let changed = requests();
    assert_eq!(changed.len(), 6, "{changed:#?}");
    assert_eq!((report.uploaded.len(), report.present), (2, 7));
    let events = recorder.0.into_inner().unwrap();
    let advanced: u64 = (events.iter())
        .filter_map(|event| match event {
            Event::Advanced { amount, .. } => Some(*amount),
            _ => None,
        })
        .sum();
    let expected: u64 = report.uploaded.iter().map(|blob| blob.size).sum();
    assert_eq!(advanced, expected);
    let end = Event::Finished {
        phase: Phase::Push,
        summary: "1 of 8 layers sent, 300.6 kB; 7 already there".to_owned(),
    };
    assert_eq!(events.last(), Some(&end));

    // A retention tag beside it is one PUT more.
    let again = image(&["a", "b", "c", "d", "e", "f", "g", "changed again"]);
    let both = tags(&["4", "forebay-dev-4"]);
    push(&*client(), &again, &both, Some(&digest), &Silent)
        .await
        .unwrap();
    assert_eq!(requests().len(), 7);

    // Back to what the registry had before: no bytes, although nothing said so.
    let previous = again.manifest.descriptor.digest;
    let report = push(&*client(), &after, &tags(&["5"]), Some(&previous), &Silent)
        .await
        .unwrap();
    assert_eq!((report.uploaded.len(), report.present), (0, 9));
    assert_eq!(requests().len(), 4);
}

#[tokio::test]
async fn another_repository_of_the_registry_is_mounted_from() {
    let Some(server) = DockerRegistry::start() else {
        return;
    };
    let base_name = format!("{}/base", server.address());
    let name = format!("{}/project", server.address());
    let base = open::repository(&base_name, Vec::new());
    let layers = || vec![images::blob("a", 100_000), images::blob("b", 100_000)];
    push(&*base, &image_of(layers()), &tags(&["1"]), None, &Silent)
        .await
        .unwrap();

    let before = server.requests().len();
    let mut all = layers();
    all.push(images::blob("own", 1_000));
    let mut image = image_of(all);
    image.mount_candidates = vec![
        "elsewhere.test/base".parse().unwrap(),
        base.repository().clone(),
    ];
    let registry = open::repository(&name, Vec::new());
    let report = push(&*registry, &image, &tags(&["1"]), None, &Silent)
        .await
        .unwrap();
    assert_eq!((report.mounted, report.uploaded.len()), (2, 2));
    // The question for the manifest, two mounts, two uploads, the manifest.
    let requests = server.requests()[before..].to_vec();
    assert_eq!(requests.len(), 1 + 2 + 2 * 2 + 1, "{requests:#?}");
}

#[tokio::test]
async fn what_images_share_is_sent_once_when_they_are_pushed_together() {
    let Some(server) = DockerRegistry::start() else {
        return;
    };
    let registry = open::repository(&format!("{}/project", server.address()), Vec::new());
    let images: Vec<_> = (0..4)
        .map(|number| image(&["base", "wheels", &format!("project {number}")]))
        .collect();
    let pushes = images.iter().zip(0..).map(|(image, number)| {
        let registry = &registry;
        async move {
            let tag = tags(&[&number.to_string()]);
            push(&**registry, image, &tag, None, &Silent).await.unwrap()
        }
    });
    let reports = futures_util::future::join_all(pushes).await;
    let sent: usize = reports.iter().map(|report| report.uploaded.len()).sum();
    // Two that all have; of each image its own layer and configuration.
    assert_eq!(sent, 2 + 4 * 2);
    let requests = server.requests();
    let count = |method: &str, path: &str| {
        let all = requests.iter();
        all.filter(|request| request.starts_with(method) && request.contains(path))
            .count()
    };
    assert_eq!(count("PUT", "/blobs/"), sent, "{requests:#?}");
    assert_eq!(count("POST", "/blobs/"), sent, "{requests:#?}");
    assert_eq!(count("PUT", "/manifests/"), 4, "{requests:#?}");
}

#[tokio::test]
async fn the_same_image_in_a_new_repository_is_mounted_whole() {
    let Some(server) = DockerRegistry::start() else {
        return;
    };
    let staging = open::repository(&format!("{}/staging", server.address()), Vec::new());
    let mut image = image(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    push(&*staging, &image, &tags(&["1"]), None, &Silent)
        .await
        .unwrap();
    image.mount_candidates = vec![staging.repository().clone()];
    let production = open::repository(&format!("{}/production", server.address()), Vec::new());
    let report = push(&*production, &image, &[], None, &Silent)
        .await
        .unwrap();
    assert_eq!((report.mounted, report.uploaded.len()), (9, 0));
}

#[tokio::test]
async fn a_password_is_found_in_dockers_configuration() {
    let passwords = tempfile::tempdir().unwrap();
    let htpasswd = passwords.path().join("htpasswd");
    // bcrypt of "s3cret".
    std::fs::write(
        &htpasswd,
        "deployer:$2b$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK\n",
    )
    .unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        htpasswd.display()
    );
    let Some(server) = DockerRegistry::start_with(&auth) else {
        return;
    };
    let name = format!("{}/project", server.address());
    let config = |password: &str| {
        let file = passwords.path().join(format!("{}.json", password.len()));
        let json = serde_json::json!({"auths": {
            server.address(): {"username": "deployer", "password": password},
        }});
        std::fs::write(&file, json.to_string()).unwrap();
        vec![file]
    };

    let image = image(&["a"]);
    let registry = open::repository(&name, config("s3cret"));
    push(&*registry, &image, &tags(&["1"]), None, &Silent)
        .await
        .unwrap();
    let refused = |requests: &[String]| requests.iter().filter(|r| r.ends_with("401")).count();
    // The registry is asked once how it wants to be asked.
    assert_eq!(refused(&server.requests()), 1);
    let descriptor = image.blobs[1].descriptor();
    assert!(registry.has_blob(&descriptor.digest).await.unwrap());
    assert_eq!(refused(&server.requests()), 1);

    for (config, identity) in [
        (config("hunter2"), "deployer (from"),
        (Vec::new(), "nobody"),
    ] {
        let registry = open::repository(&name, config);
        let tag = ManifestName::Tag("1".parse().unwrap());
        let error = registry.manifest_descriptor(&tag).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, RegistryError::Denied { .. }), "{text}");
        assert!(text.contains(identity), "{text}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }
}

/// A layer of a base image, which knows where that lies.
struct BaseLayer(BytesBlob, Repository);

impl BlobSource for BaseLayer {
    fn descriptor(&self) -> &Descriptor {
        self.0.descriptor()
    }

    fn open(&self) -> std::io::Result<Box<dyn std::io::Read + Send>> {
        Err(std::io::Error::other(
            "a mounted layer's bytes are not needed",
        ))
    }

    fn origin(&self) -> Option<&Repository> {
        Some(&self.1)
    }
}

#[tokio::test]
async fn only_a_bases_layers_are_mounted_from_the_base() {
    let Some(server) = DockerRegistry::start() else {
        return;
    };
    let base = open::repository(&format!("{}/base", server.address()), Vec::new());
    let layer = || images::blob("base", 1_000);
    push(&*base, &image_of(vec![layer()]), &[], None, &Silent)
        .await
        .unwrap();

    let project = open::repository(&format!("{}/project", server.address()), Vec::new());
    let with_base = || {
        let mut image = image_of(vec![layer(), images::blob("own", 1_000)]);
        image.blobs[1] = Arc::new(BaseLayer(layer(), base.repository().clone()));
        image
    };
    let before = server.requests().len();
    let report = push(&*project, &with_base(), &[], None, &Silent)
        .await
        .unwrap();
    assert_eq!((report.mounted, report.uploaded.len()), (1, 2));
    // The question for the manifest, a mount, two uploads, the manifest.
    assert_eq!(server.requests().len() - before, 1 + 1 + 2 * 2 + 1);
}
