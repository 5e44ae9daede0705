//! What a repository has: tags, page by page, and what refers to a manifest.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/conformant_registry.rs"]
mod conformant_registry;
#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/images.rs"]
#[allow(dead_code)]
mod images;
#[path = "support/open.rs"]
#[allow(dead_code)]
mod open;
#[path = "support/strict_registry.rs"]
#[allow(dead_code)]
mod strict_registry;

use std::sync::Arc;

use conformant_registry::ConformantRegistry;
use docker_registry::DockerRegistry;
use forebay::oci::{Descriptor, MediaType, Sha256Digest, Tag};
use forebay::progress::Silent;
use forebay::registry::{ManifestName, Registry, RegistryError, push};
use serde_json::json;
use strict_registry::{StrictRegistry, answer, error};

const SIGNATURE: &str = "application/vnd.test.signature";

fn tag(text: &str) -> Tag {
    text.parse().unwrap()
}

async fn tags(registry: &Arc<dyn Registry>) -> Vec<String> {
    let mut tags: Vec<_> = registry
        .tags()
        .await
        .unwrap()
        .iter()
        .map(Tag::to_string)
        .collect();
    tags.sort();
    tags
}

/// Pushes an image under two tags; gives its digest.
async fn two_tags_are_listed(registry: &Arc<dyn Registry>) -> Sha256Digest {
    let image = images::image(&["a"]);
    push(
        &**registry,
        &image,
        &[tag("1.0"), tag("latest")],
        None,
        &Silent,
    )
    .await
    .unwrap();
    assert_eq!(tags(registry).await, ["1.0", "latest"]);
    image.manifest.descriptor.digest
}

/// A manifest that refers to another.
async fn sign(registry: &Arc<dyn Registry>, subject: &Sha256Digest) -> Descriptor {
    let found = registry
        .manifest(&ManifestName::Digest(*subject))
        .await
        .unwrap()
        .unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&found.bytes).unwrap();
    manifest["subject"] = serde_json::to_value(&found.descriptor).unwrap();
    manifest["artifactType"] = SIGNATURE.into();
    let bytes = serde_json::to_vec(&manifest).unwrap();
    let descriptor = Descriptor::of(MediaType::new(MediaType::OCI_MANIFEST), &bytes);
    let name = ManifestName::Digest(descriptor.digest);
    registry
        .put_manifest(&name, &descriptor.media_type, bytes.into())
        .await
        .unwrap();
    descriptor
}

async fn is_signed(registry: &Arc<dyn Registry>, subject: &Sha256Digest, by: &Descriptor) {
    let referrers = registry.referrers(subject).await.unwrap();
    assert_eq!(referrers.len(), 1);
    assert_eq!(referrers[0].descriptor, *by);
    assert_eq!(referrers[0].artifact_type.as_deref(), Some(SIGNATURE));
}

#[tokio::test]
async fn a_real_registry_lists_tags_and_keeps_referrers_under_a_tag() {
    let Some(server) = DockerRegistry::start() else {
        return;
    };
    let registry = open::repository(&format!("{}/project", server.address()), Vec::new());
    let missing = registry.tags().await.unwrap_err();
    assert!(
        matches!(missing, RegistryError::NoRepository { .. }),
        "{missing:?}"
    );
    let digest = two_tags_are_listed(&registry).await;
    assert!(registry.referrers(&digest).await.unwrap().is_empty());

    // It knows no referrers: whoever signs writes the list.
    let signature = sign(&registry, &digest).await;
    let mut entry = serde_json::to_value(&signature).unwrap();
    entry["artifactType"] = SIGNATURE.into();
    let index = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [entry],
    });
    let name = ManifestName::Tag(tag(&digest.to_string().replace(':', "-")));
    let media_type = MediaType::new(MediaType::OCI_INDEX);
    registry
        .put_manifest(&name, &media_type, index.to_string().into())
        .await
        .unwrap();
    is_signed(&registry, &digest, &signature).await;
}

#[tokio::test]
async fn a_registry_that_knows_referrers_is_asked_for_them() {
    let Some(server) = ConformantRegistry::start() else {
        return;
    };
    let registry = open::repository(&format!("{}/project", server.address()), Vec::new());
    let digest = two_tags_are_listed(&registry).await;
    assert!(registry.referrers(&digest).await.unwrap().is_empty());
    let signature = sign(&registry, &digest).await;
    is_signed(&registry, &digest, &signature).await;
}

#[tokio::test]
async fn a_layout_lists_tags_and_referrers() {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("oci:{}", directory.path().join("layout").display());
    let registry = open::repository(&name, Vec::new());
    assert!(registry.tags().await.unwrap().is_empty());
    let digest = two_tags_are_listed(&registry).await;
    assert!(registry.referrers(&digest).await.unwrap().is_empty());
    let signature = sign(&registry, &digest).await;
    is_signed(&registry, &digest, &signature).await;
}

#[tokio::test]
async fn lists_are_read_to_their_last_page() {
    let subject = Sha256Digest::of(b"subject");
    let entry = |text: &str| {
        let descriptor = Descriptor::of(MediaType::new(MediaType::OCI_MANIFEST), text.as_bytes());
        serde_json::to_value(descriptor).unwrap()
    };
    let server = StrictRegistry::start_with(move |request| {
        let last = request.query.get("last").map(String::as_str);
        let path = request.path.clone();
        let next = |page: &str| format!("<{path}?last={page}>; rel=\"next\"");
        if path.ends_with("/tags/list") {
            return Some(match last {
                None => {
                    let body = json!({"name": "project", "tags": ["a", "b"]});
                    answer(200, &[("link", &next("b"))], body.to_string())
                }
                // Some registries say null for none.
                Some("b") => answer(200, &[("link", &next("c"))], r#"{"tags":null}"#),
                _ => answer(200, &[], r#"{"name":"project","tags":["d"]}"#),
            });
        }
        path.contains("/referrers/").then(|| match last {
            None => {
                let body = json!({"manifests": [entry("one")]});
                answer(200, &[("link", &next("1"))], body.to_string())
            }
            _ => answer(200, &[], json!({"manifests": [entry("two")]}).to_string()),
        })
    })
    .await;
    let registry = open::repository(&server.repository(), Vec::new());
    assert_eq!(tags(&registry).await, ["a", "b", "d"]);
    assert_eq!(registry.referrers(&subject).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_refusal_is_not_an_empty_list() {
    for (status, code) in [(403, "DENIED"), (400, "X")] {
        let server = StrictRegistry::start_with(move |_| Some(error(status, code))).await;
        let registry = open::repository(&server.repository(), Vec::new());
        assert!(registry.tags().await.is_err(), "{status}");
        let subject = Sha256Digest::of(b"subject");
        assert!(registry.referrers(&subject).await.is_err(), "{status}");
    }
    let server = StrictRegistry::start_with(|_| Some(answer(200, &[], "<html>"))).await;
    let registry = open::repository(&server.repository(), Vec::new());
    let error = registry.tags().await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Malformed { .. }),
        "{error:?}"
    );
}
