//! What `forebay doctor` says of logins: who one would be, for how long, and what to do where
//! nothing comes of it. Google's token server, Vault and the registry are reached; the bucket is not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "support/certificates.rs"]
#[allow(dead_code)]
mod certificates;
#[path = "support/docker_registry.rs"]
#[allow(dead_code)]
mod docker_registry;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;
#[path = "support/openbao.rs"]
#[allow(dead_code)]
mod openbao;
#[path = "support/small_project.rs"]
mod small_project;
#[path = "support/strict_registry.rs"]
#[allow(dead_code)]
mod strict_registry;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use certificates::Authority;
use docker_registry::DockerRegistry;
use forebay_support::Machine;
use openbao::OpenBao;
use serde_json::{Value, json};
use small_project::small_project;
use strict_registry::{StrictRegistry, answer};

/// A project, whose bucket is one of Google's that this machine cannot reach.
fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().unwrap();
    small_project(project.path());
    project
}

fn machine() -> Machine {
    let mut machine = Machine::new()
        .with_python("/usr/bin/python3")
        .with_variable("FOREBAY_ENGINE", "none");
    for name in [
        "HTTP_PROXY",
        "http_proxy",
        "https_proxy",
        "NO_PROXY",
        "no_proxy",
    ] {
        machine = machine.without_variable(name);
    }
    machine.with_variable("HTTPS_PROXY", "http://127.0.0.1:9")
}

/// The findings on these subjects, each with its verdict and remedy, and the exit status.
fn found(
    machine: &Machine,
    project: &Path,
    arguments: &[&str],
    subjects: &[&str],
) -> (Vec<[String; 3]>, i32) {
    let common = ["doctor", "--json", "-c", "dev", "-b", "gs://composer"];
    let finished = machine.forebay(project, [&common, arguments].concat());
    let document: Value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", finished.stdout, finished.stderr));
    let findings = document["findings"].as_array().unwrap().iter();
    let findings =
        findings.filter(|finding| subjects.iter().any(|about| finding["about"] == *about));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = findings.map(|finding| {
        [
            text(&finding["verdict"]),
            text(&finding["says"]),
            text(&finding["remedy"]),
        ]
    });
    let all = finished.stdout.clone() + &finished.stderr;
    for secret in ["ya29.", "hunter2", "PRIVATE KEY", "s.wrong"] {
        assert!(!all.contains(secret), "{all}");
    }
    (findings.collect(), finished.status)
}

/// The one finding of a bucket's login, with an image repository that needs none.
fn of_bucket(machine: &Machine, project: &Path, arguments: &[&str]) -> [String; 3] {
    let arguments = [&["-r", "oci:images"], arguments].concat();
    let (findings, _) = found(machine, project, &arguments, &["login"]);
    let [finding] = <[[String; 3]; 1]>::try_from(findings).unwrap();
    finding
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn google_knows_a_service_account_by_its_key() {
    let tokens = StrictRegistry::start_with(|request| {
        let token = r#"{"access_token": "ya29.s3cret", "expires_in": 3600}"#;
        let json = ("content-type", "application/json");
        request
            .is("POST", "/token")
            .then(|| answer(200, &[json], token))
    })
    .await;
    let address = tokens.address().to_owned();
    let seen = tokio::task::spawn_blocking(move || {
        let project = project();
        let authority = Authority::new();
        let key = authority.sign("deployer", "DNS:deployer.test", "2");
        let private = std::fs::read_to_string(key.with_extension("key")).unwrap();
        let path = project.path().join("deployer-key.json");
        let account = json!({
            "type": "service_account", "project_id": "p", "private_key_id": "1",
            "client_email": "deployer@p.iam.gserviceaccount.com", "private_key": private,
            "token_uri": format!("http://{address}/token"),
        });
        std::fs::write(&path, account.to_string()).unwrap();
        let variable = "GOOGLE_APPLICATION_CREDENTIALS";
        let good = machine().with_variable(variable, path.to_str().unwrap());
        let lost = machine().with_variable(variable, "/nowhere/key.json");
        [good, lost].map(|machine| of_bucket(&machine, project.path(), &[]))
    });
    let [good, lost] = seen.await.unwrap();
    assert_eq!(good[0], "good", "{good:?}");
    assert!(
        good[1].starts_with(
            "to Google: the service account deployer@p.iam.gserviceaccount.com (GOOGLE"
        ),
        "{good:?}"
    );
    assert!(
        good[1].ends_with("; the token is good for 59 min"),
        "{good:?}"
    );
    assert_eq!(lost[0], "bad", "{lost:?}");
    assert!(lost[1].contains("/nowhere/key.json"), "{lost:?}");
    assert!(
        lost[2].contains("GOOGLE_APPLICATION_CREDENTIALS"),
        "{lost:?}"
    );
}

#[test]
fn a_token_in_a_file_is_as_good_as_the_file() {
    let project = project();
    let file = project.path().join("token");
    let arguments = ["--access-token-file", file.to_str().unwrap()];
    let [verdict, says, remedy] = of_bucket(&machine(), project.path(), &arguments);
    assert_eq!(verdict, "bad");
    assert!(says.contains("cannot be read"), "{says}");
    assert!(
        remedy.contains("gcloud auth print-access-token"),
        "{remedy}"
    );
    std::fs::write(&file, "ya29.fresh\n").unwrap();
    let [verdict, says, _] = of_bucket(&machine(), project.path(), &arguments);
    assert_eq!(verdict, "good");
    assert!(says.contains("the access token file"), "{says}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vault_says_for_how_long_its_token_is_good() {
    let Some(server) = OpenBao::start() else {
        return;
    };
    let google = json!({"token": "ya29.real", "token_ttl": 3_599});
    server.put_token("token/deployer", google).await;
    let google = json!({"token": "ya29.short", "token_ttl": 100});
    server.put_token("token/short", google).await;
    let vault_token = server.token(json!({"policies": ["deploy"]})).await;
    let endpoint = server.address().to_owned();
    let seen = tokio::task::spawn_blocking(move || {
        let project = project();
        let of = |path: &str, secret: &str| {
            let endpoint = format!("{endpoint}/v1/gcp/{path}");
            let machine = machine().with_variable("VAULT_TOKEN", secret);
            of_bucket(&machine, project.path(), &["-a", "vault", "-ve", &endpoint])
        };
        [
            of("token/deployer", &vault_token),
            of("token/short", &vault_token),
            of("token/deployer", "s.wrong"),
        ]
    });
    let [good, short, wrong] = seen.await.unwrap();
    let place = format!("to Google: Vault at {}/v1/gcp/token/", server.address());
    assert_eq!(good[0], "good", "{good:?}");
    assert!(good[1].starts_with(&place), "{good:?}");
    assert!(
        good[1].ends_with("; the token is good for 59 min"),
        "{good:?}"
    );
    assert_eq!(short[0], "warning", "{short:?}");
    assert!(short[1].contains("; the token ends in "), "{short:?}");
    assert!(short[2].contains("before a long deploy"), "{short:?}");
    assert_eq!(wrong[0], "bad", "{wrong:?}");
    assert!(wrong[1].contains("VAULT_TOKEN is wrong"), "{wrong:?}");
    assert!(wrong[2].contains("vault login"), "{wrong:?}");
}

#[test]
fn a_registry_knows_users_by_what_docker_login_has_kept() {
    let folder = tempfile::tempdir().unwrap();
    let passwords = folder.path().join("htpasswd");
    // bcrypt of "hunter2".
    let line = "deployer:$2b$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n";
    std::fs::write(&passwords, line).unwrap();
    let auth = format!(
        "auth:\n  htpasswd:\n    realm: images\n    path: {}\n",
        passwords.display()
    );
    let Some(server) = DockerRegistry::start_with(&auth) else {
        return;
    };
    let project = project();
    let token = project.path().join("token");
    std::fs::write(&token, "ya29.fresh\n").unwrap();
    let host = server.address();
    let repository = format!("{host}/team/small");
    let of = |password: Option<&str>| {
        let docker = tempfile::tempdir().unwrap();
        let auths = match password {
            Some(password) => {
                let login = STANDARD.encode(format!("deployer:{password}"));
                json!({"auths": {host: {"auth": login}}})
            }
            None => json!({}),
        };
        std::fs::write(docker.path().join("config.json"), auths.to_string()).unwrap();
        let machine = machine().with_variable("DOCKER_CONFIG", docker.path().to_str().unwrap());
        let token = token.to_str().unwrap();
        let arguments = ["-r", &repository, "--access-token-file", token];
        findings(&machine, project.path(), &arguments)
    };
    let [login, rights] = of(Some("hunter2"));
    assert_eq!(login[0], "good");
    let place = format!("to {host}: deployer");
    assert!(login[1].starts_with(&place), "{login:?}");
    assert_eq!(rights[0], "good", "{rights:?}");
    let [login, rights] = of(Some("hunter3"));
    assert!(login[1].starts_with(&place), "{login:?}");
    assert_eq!(rights[0], "bad", "{rights:?}");
    assert!(rights[1].contains("deployer"), "{rights:?}");
    assert!(
        rights[2].contains(&format!("docker login {host}")),
        "{rights:?}"
    );
    let [login, rights] = of(None);
    assert!(
        login[1].contains("has no login; run `docker login"),
        "{login:?}"
    );
    assert_eq!(rights[0], "bad", "{rights:?}");
    assert!(
        rights[2].contains(&format!("docker login {host}")),
        "{rights:?}"
    );
}

/// The findings on the registry: the login, and what it may.
fn findings(machine: &Machine, project: &Path, arguments: &[&str]) -> [[String; 3]; 2] {
    let (mut findings, status) = found(machine, project, arguments, &["login", "registry"]);
    assert_ne!(status, 0, "the bucket cannot be reached");
    // The bucket's login.
    findings.remove(0);
    findings.try_into().unwrap()
}
