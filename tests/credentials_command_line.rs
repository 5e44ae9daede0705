//! What the program says about logins, as a person sees it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stderr)]

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay;

use std::path::Path;

use crate::forebay::{Finished, Machine, copy_folder};

const BUCKET: &str = "gs://composer";

/// Asks for the state of an environment whose bucket wants a token.
fn status(machine: &Machine, project: &Path, arguments: &[&str]) -> Finished {
    let common = ["status", "-r", "oci:images", "-b", BUCKET, "-a", "vault"];
    machine.forebay(project, common.iter().chain(arguments))
}

fn project() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/projects/dashes");
    copy_folder(&fixture, directory.path());
    directory
}

#[test]
fn a_vault_that_is_not_verified_is_warned_of_every_time() {
    let (machine, project) = (Machine::new(), project());
    // Nothing listens there.
    let endpoint = [
        "-ve",
        "https://127.0.0.1:1/v1/gcp/token/x",
        "-vs",
        "hunter2",
    ];
    for verify in ["false", "true"] {
        let arguments: Vec<_> = endpoint.iter().copied().chain(["-vev", verify]).collect();
        let finished = status(&machine, project.path(), &arguments);
        let warned = finished.stderr.contains("NOT verified");
        assert_eq!(warned, verify == "false", "{}", finished.stderr);
        assert_ne!(finished.status, 0);
        let all = finished.stdout + &finished.stderr;
        assert!(all.contains("Vault at https://127.0.0.1:1"), "{all}");
        assert!(!all.contains("hunter2"), "{all}");
    }
}

#[test]
fn what_vault_lacks_is_said_before_any_request() {
    let (machine, project) = (Machine::new(), project());
    for (arguments, expected) in [
        (&[][..], "vault_endpoint is missing"),
        (&["-ve", "gcp/token/x"], "VAULT_ADDR is not set"),
        (
            &["-ve", "https://vault.test/v1/x"],
            "no Vault token was found",
        ),
        (
            &["-ve", "https://vault.test/v1/x", "--vault-role-id", "r"],
            "VAULT_SECRET_ID",
        ),
    ] {
        let finished = status(&machine, project.path(), arguments);
        assert_eq!(finished.status, 2, "{}", finished.stderr);
        assert!(finished.stderr.contains(expected), "{}", finished.stderr);
    }
}
