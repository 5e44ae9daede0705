//! Workload identity federation, impersonation, the metadata server and the order
//! of sources, against endpoints of the tests' own in the published formats. Each
//! login is looked for by a process of its own, with an environment of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// How a process of its own tells the test what it found.
#![allow(clippy::print_stdout)]

#[path = "support/open.rs"]
#[allow(dead_code)]
mod open;
#[path = "support/strict_registry.rs"]
#[allow(dead_code)]
mod strict_registry;

use std::path::{Path, PathBuf};

use forebay::credentials::{AuthMethod, token_source};
use serde_json::{Value, json};
use strict_registry::{Received, Reply, StrictRegistry, answer};

const ACCOUNT: &str = "deployer@p.iam.gserviceaccount.com";
const PROVIDER: &str = "projects/1/locations/global/workloadIdentityPools/ci/providers/runner";

/// What the process of its own does: two tokens, a refused one, a third; who that was.
#[tokio::test]
#[ignore = "runs in a process of its own, for the other tests"]
async fn tell_tokens() {
    let source = token_source(&AuthMethod::LocalAccount, &open::http()).unwrap();
    for round in 0..3 {
        if round == 2 {
            source.invalidate().await;
        }
        match source.token().await {
            Ok(token) => println!("TOLD {}", token.unwrap().reveal()),
            Err(error) => {
                println!("TOLD {error}");
                println!("TOLD {error:?}");
                return;
            }
        }
    }
    println!("TOLD {}", source.describe());
}

/// A home with nothing in it, no metadata server, and a server for everything else.
struct Workplace {
    home: tempfile::TempDir,
    server: StrictRegistry,
    variables: Vec<(&'static str, String)>,
}

impl Workplace {
    async fn start(rule: impl FnMut(&Received) -> Option<Reply> + Send + 'static) -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            server: StrictRegistry::start_with(rule).await,
            // Nothing listens there.
            variables: vec![("GCE_METADATA_HOST", "127.0.0.1:1".to_owned())],
        }
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn set(&mut self, name: &'static str, value: impl AsRef<Path>) {
        let value = value.as_ref().to_str().unwrap().to_owned();
        self.variables.push((name, value));
    }

    fn name_file(&mut self, credential: &Value) {
        let path = self.write("credential.json", &credential.to_string());
        self.set("GOOGLE_APPLICATION_CREDENTIALS", path);
    }

    fn external_account(&self, source: Value, impersonate: bool) -> Value {
        let address = self.server.address();
        let mut credential = json!({
            "type": "external_account",
            "audience": format!("//iam.googleapis.com/{PROVIDER}"),
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("http://{address}/sts"),
            "credential_source": source,
        });
        if impersonate {
            credential["service_account_impersonation_url"] = self.impersonation().into();
        }
        credential
    }

    fn impersonation(&self) -> String {
        let address = self.server.address();
        format!("http://{address}/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken")
    }

    /// What the process of its own told.
    async fn told(&self) -> Vec<String> {
        let output = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tell_tokens", "--ignored", "--nocapture"])
            .env_clear()
            .env("HOME", self.home.path())
            .env("PATH", self.home.path().join("bin"))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .output()
            .await
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let told = text
            .lines()
            .filter_map(|line| Some(line.split_once("TOLD ")?.1.to_owned()));
        told.collect()
    }

    /// The reason of a refusal, which shows none of the secrets of these tests.
    async fn refusal(&self) -> String {
        let told = self.told().await;
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(!told.concat().contains("s3cret"), "{told:?}");
        told[0].clone()
    }
}

fn granted(token: &str) -> Reply {
    let body = json!({
        "access_token": token, "expires_in": 3600, "token_type": "Bearer",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
    });
    answer(
        200,
        &[("content-type", "application/json")],
        body.to_string(),
    )
}

/// Google's token service: takes the subject token `subject-s3cret` alone.
fn exchange(request: &Received) -> Option<Reply> {
    request.is("POST", "/sts").then(|| {
        let form = String::from_utf8(request.body.to_vec()).unwrap();
        let expected = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange";
        assert!(form.contains(expected), "{form}");
        assert!(form.contains("workloadIdentityPools"), "{form}");
        match form.contains("subject_token=subject-s3cret") {
            true => granted("federated"),
            false => answer(
                400,
                &[],
                r#"{"error":"invalid_grant","error_description":"s3cret"}"#,
            ),
        }
    })
}

/// The service that makes tokens of service accounts for who bears `bearer`.
fn impersonate(request: &Received, bearer: &str) -> Option<Reply> {
    request
        .is("POST", "/v1/projects/-/serviceAccounts/")
        .then(|| {
            if request.header("authorization") != Some(&format!("Bearer {bearer}")) {
                return answer(403, &[], r#"{"error":{"code":403,"message":"s3cret"}}"#);
            }
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let scope = "https://www.googleapis.com/auth/cloud-platform";
            assert_eq!(body["scope"], json!([scope]));
            let body = json!({"accessToken": "impersonated", "expireTime": "2100-01-01T00:00:00Z"});
            answer(
                200,
                &[("content-type", "application/json")],
                body.to_string(),
            )
        })
}

#[tokio::test]
async fn a_file_an_address_and_a_program_give_the_subject_token() {
    for source in ["file", "file as JSON", "url", "executable"] {
        let mut workplace = Workplace::start(|request| {
            if request.is("GET", "/subject") {
                assert_eq!(request.header("x-runner"), Some("runner-s3cret"));
                return Some(answer(200, &[], r#"{"value":"subject-s3cret"}"#));
            }
            exchange(request)
        })
        .await;
        let json_format = json!({"type": "json", "subject_token_field_name": "value"});
        let credential_source = match source {
            "file" => {
                json!({"file": workplace.write("subject", "subject-s3cret")})
            }
            "file as JSON" => {
                let file = workplace.write("subject", r#"{"value":"subject-s3cret"}"#);
                json!({"file": file, "format": json_format})
            }
            "url" => json!({
                "url": format!("http://{}/subject?audience=x", workplace.server.address()),
                "headers": {"x-runner": "runner-s3cret"},
                "format": json_format,
            }),
            _ => {
                let answer = json!({
                    "version": 1, "success": true, "id_token": "subject-s3cret",
                    "token_type": "urn:ietf:params:oauth:token-type:id_token",
                });
                let file = workplace.write("answer", &answer.to_string());
                workplace.set("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES", "1");
                json!({"executable": {"command": format!("/bin/cat {}", file.display())}})
            }
        };
        let credential = workplace.external_account(credential_source, false);
        workplace.name_file(&credential);
        let told = workplace.told().await;
        assert_eq!(
            told[..3],
            ["federated", "federated", "federated"],
            "{source}: {told:?}"
        );
        assert!(
            told[3].contains(PROVIDER) && told[3].contains("credential.json"),
            "{told:?}"
        );
        // Once for two uses, and once more after the refusal.
        assert_eq!(workplace.server.count("POST", "/sts"), 2, "{source}");
    }
}

#[tokio::test]
async fn a_workload_becomes_a_service_account() {
    let mut workplace =
        Workplace::start(|request| exchange(request).or_else(|| impersonate(request, "federated")))
            .await;
    let subject = json!({"file": workplace.write("subject", "subject-s3cret")});
    let credential = workplace.external_account(subject, true);
    workplace.name_file(&credential);
    let told = workplace.told().await;
    assert_eq!(told[..3], ["impersonated"; 3], "{told:?}");
    assert!(
        told[3].contains(ACCOUNT) && told[3].contains(PROVIDER),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_user_becomes_a_service_account() {
    for (bearer, granted_to_user) in [("user", true), ("somebody else", false)] {
        let mut workplace = Workplace::start(move |request| {
            let refresh = request.is("POST", "/token").then(|| granted("user"));
            refresh.or_else(|| impersonate(request, bearer))
        })
        .await;
        let credential = json!({
            "type": "impersonated_service_account",
            "service_account_impersonation_url": workplace.impersonation(),
            "source_credentials": {
                "type": "authorized_user", "client_id": "id", "client_secret": "s3cret",
                "refresh_token": "refresh-s3cret",
                "token_uri": format!("http://{}/token", workplace.server.address()),
            },
        });
        workplace.name_file(&credential);
        if granted_to_user {
            let told = workplace.told().await;
            assert_eq!(told[..3], ["impersonated"; 3], "{told:?}");
            assert!(told[3].contains(ACCOUNT), "{told:?}");
        } else {
            let text = workplace.refusal().await;
            let permission = "iam.serviceAccounts.getAccessToken";
            for part in [
                permission,
                ACCOUNT,
                "serviceAccountTokenCreator",
                "credential.json",
            ] {
                assert!(text.contains(part), "{part}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_federation_that_fails_names_where() {
    for case in [
        "subject",
        "url",
        "absent",
        "executable",
        "forbidden",
        "denied",
    ] {
        let mut workplace = Workplace::start(move |request| {
            if request.is("GET", "/subject") {
                return Some(answer(403, &[], "s3cret"));
            }
            exchange(request).or_else(|| impersonate(request, "somebody else"))
        })
        .await;
        let address = workplace.server.address().to_owned();
        let (source, expected) = match case {
            "subject" => (
                json!({"file": workplace.write("subject", "another-s3cret")}),
                "refused the subject token from the file",
            ),
            "url" => (
                json!({"url": format!("http://{address}/subject?s3cret")}),
                "/subject answered 403 Forbidden and gave no subject token",
            ),
            "absent" => (
                json!({"file": "/nonexistent/subject"}),
                "no subject token could be read from the file /nonexistent/subject",
            ),
            "executable" => (
                json!({"executable": {"command": "/bin/false s3cret"}}),
                "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1",
            ),
            _ => (
                json!({"file": workplace.write("subject", "subject-s3cret")}),
                "roles/iam.workloadIdentityUser",
            ),
        };
        let credential = workplace.external_account(source, true);
        workplace.name_file(&credential);
        let text = workplace.refusal().await;
        assert!(text.contains(expected), "{case}: {text}");
        assert!(
            text.contains(PROVIDER) && text.contains("credential.json"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn sources_are_asked_in_order() {
    let mut workplace = Workplace::start(|request| {
        if request.path.starts_with("/computeMetadata/") {
            let flavor = ("metadata-flavor", "Google");
            assert_eq!(request.header("metadata-flavor"), Some("Google"));
            return Some(match request.path.ends_with("/token") {
                true => answer(
                    200,
                    &[flavor, ("content-type", "application/json")],
                    r#"{"access_token":"machine","expires_in":3600,"token_type":"Bearer"}"#,
                ),
                false => answer(200, &[flavor], "default@p.iam.gserviceaccount.com"),
            });
        }
        match request.path.as_str() {
            "/named" => Some(granted("named")),
            "/known" => Some(granted("known")),
            _ => None,
        }
    })
    .await;
    let address = workplace.server.address().to_owned();
    let login = |path: &str| {
        json!({
            "type": "authorized_user", "client_id": "id", "client_secret": "s3cret",
            "refresh_token": "refresh", "token_uri": format!("http://{address}/{path}"),
        })
    };
    // gcloud's account comes last.
    let gcloud = workplace.write(
        "bin/gcloud",
        "#!/bin/sh\necho '{\"credential\":{\"access_token\":\"gcloud\",\"token_expiry\":\"2100-01-01T00:00:00Z\"}}'\n",
    );
    #[cfg(unix)]
    std::fs::set_permissions(&gcloud, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(workplace.told().await[0], "gcloud");
    workplace.set("GCE_METADATA_HOST", &address);
    assert_eq!(workplace.told().await[0], "machine");
    let folder = workplace.home.path().join("cloud");
    workplace.write(
        "cloud/application_default_credentials.json",
        &login("known").to_string(),
    );
    assert_eq!(workplace.told().await[0], "machine");
    workplace.set("CLOUDSDK_CONFIG", folder);
    assert_eq!(workplace.told().await[0], "known");
    workplace.name_file(&login("named"));
    assert_eq!(workplace.told().await[0], "named");
    // A file that was named and is not there is not passed over.
    workplace.set("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent/key.json");
    assert!(workplace.refusal().await.contains("does not exist"));
}

#[tokio::test]
async fn a_token_is_renewed_before_it_ends() {
    let mut exchanged = 0;
    let mut workplace = Workplace::start(move |request| {
        request.is("POST", "/sts").then(|| {
            exchanged += 1;
            let body = json!({
                "access_token": format!("federated-{exchanged}"), "expires_in": 1,
                "token_type": "Bearer",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            });
            answer(
                200,
                &[("content-type", "application/json")],
                body.to_string(),
            )
        })
    })
    .await;
    let subject = json!({"file": workplace.write("subject", "subject-s3cret")});
    let credential = workplace.external_account(subject, false);
    workplace.name_file(&credential);
    let told = workplace.told().await;
    assert_eq!(told.len(), 4, "{told:?}");
    // A token of one second is at its end at once; each use finds a live one.
    assert!(workplace.server.count("POST", "/sts") >= 2);
}
