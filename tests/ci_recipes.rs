//! The recipes of `docs/ci.md`: every command line is one that this program understands, and the
//! jobs do what the page says, with an emulator in the place of the team's bucket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

#[path = "support/caches.rs"]
#[allow(dead_code)]
mod caches;
#[path = "support/emulator.rs"]
#[allow(dead_code)]
mod emulator;
#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Every command line of the page: in blocks of code, and in the text.
fn command_lines(page: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for line in page.lines() {
        let mut rest = line;
        while let Some(start) = rest.find("forebay ") {
            let before = rest[..start].chars().next_back();
            rest = &rest[start..];
            let end = rest.find(['\'', '`', '"']).unwrap_or(rest.len());
            let is_command =
                matches!(before, None | Some(' ' | '`' | '\'')) && !rest.starts_with("forebay -");
            // In a sentence only what is marked as code is one.
            let is_code = before != Some(' ') || line.trim_start().starts_with("- ");
            if is_command && is_code {
                found.push(
                    rest[..end]
                        .split_whitespace()
                        .skip(1)
                        .map(str::to_owned)
                        .collect(),
                );
            }
            rest = &rest[end..];
        }
    }
    found
}

#[test]
fn every_command_of_the_page_is_understood() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci.md");
    let commands = command_lines(&std::fs::read_to_string(page).unwrap());
    assert!(commands.len() >= 15, "{commands:?}");
    for arguments in commands {
        // Flags and values are read before the help is shown: an unknown one is an error.
        let output = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(&arguments)
            .arg("--help")
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// A job of the page: what it sets, and what it runs.
#[derive(Debug, Default)]
struct Job {
    variables: BTreeMap<String, String>,
    script: String,
}

/// Where a service puts in what only it knows.
struct Service {
    public_key: String,
    private_key: String,
    private_key_file: String,
}

impl Service {
    /// A value as the page writes it: text, a secret of the service, or a file of it.
    fn value(&self, text: &str) -> Option<String> {
        let text = text.split(" #").next().unwrap_or_default().trim();
        let text = text.trim_matches(['\'', '"']);
        Some(match text {
            "${{ vars.RELEASE_KEY }}" | "release:…" => self.public_key.clone(),
            "${{ secrets.RELEASE_SIGNING_KEY }}" => self.private_key.clone(),
            "credentials('forebay-release-key')" | "credentials('forebay-release-key" => {
                self.private_key_file.clone()
            }
            // Whose identity it is, nobody asks of an emulator.
            text if text.starts_with("credentials(") => return None,
            text => text.replace("$CI_PROJECT_DIR/", ""),
        })
    }

    /// The jobs of the page, in its order.
    fn jobs(&self, page: &str) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut job: Option<Job> = None;
        for line in page.lines() {
            let line = line.trim();
            match (line, job.as_mut()) {
                ("```yaml" | "```groovy", None) => job = Some(Job::default()),
                ("```", Some(_)) => jobs.extend(job.take()),
                (line, Some(job)) => self.read(line, job),
                _ => {}
            }
        }
        jobs
    }

    fn read(&self, line: &str, job: &mut Job) {
        let mut command = |text: &str| job.script.push_str(&format!("{text}\n"));
        if let Some(text) = line.strip_prefix("- run: ") {
            return command(text);
        }
        if let Some(text) = line.strip_prefix("- ")
            && (text.starts_with("forebay ") || text.starts_with("echo "))
        {
            return command(text);
        }
        if let Some((_, rest)) = line.split_once("sh '") {
            return command(rest.split('\'').next().unwrap_or_default());
        }
        let pair = line.split_once(": ").or_else(|| line.split_once(" = "));
        if let Some((name, value)) = pair
            && name.len() > 3
            && name
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
            && let Some(value) = self.value(value)
        {
            job.variables.insert(name.to_owned(), value);
        }
    }
}

const CONFIGURATION: &str = "\
from bigflow.configuration import DeploymentConfig

deployment_config = DeploymentConfig(
    name='prod',
    properties={
        'gcp_project_id': 'my-project',
        'docker_repository': 'oci:.local/images',
        'dags_bucket': 'file://.local/composer',
    },
)
";

fn checkout(surroundings: &caches::Surroundings, name: &str) -> caches::Site {
    let site = surroundings.site(name, "UTC", "022");
    std::fs::write(site.project.join("deployment_config.py"), CONFIGURATION).unwrap();
    let settings = site.project.join("pyproject.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    let text = format!("{text}\n[tool.forebay.environments.prod]\nbase = 'scratch'\n");
    std::fs::write(settings, text).unwrap();
    site
}

#[test]
fn every_job_of_the_page_runs_and_takes_what_the_one_before_has_left() {
    let Some(surroundings) = caches::Surroundings::new() else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let Some(emulator) = runtime.block_on(emulator::Emulator::start()) else {
        return;
    };
    runtime.block_on(emulator.create_bucket("my-team-builds"));
    let (public_key, private_key_file) = checkout(&surroundings, "keys").keygen("release");
    let service = Service {
        private_key: std::fs::read_to_string(&private_key_file).unwrap(),
        public_key: public_key.clone(),
        private_key_file: private_key_file.clone(),
    };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci.md");
    let jobs = service.jobs(&std::fs::read_to_string(page).unwrap());
    let jobs: Vec<Job> = jobs
        .into_iter()
        .filter(|job| !job.script.is_empty())
        .collect();
    assert_eq!(jobs.len(), 5, "{jobs:?}");
    let mut first_of_cache = true;
    for (number, job) in jobs.iter().enumerate() {
        let mut variables = job.variables.clone();
        variables.insert("STORAGE_EMULATOR_HOST".to_owned(), emulator.address.clone());
        variables.insert("CI".to_owned(), "true".to_owned());
        // What the page leaves to the project's settings.
        let settings = [
            ("VAULT_JWT", "a token"),
            ("FOREBAY_CACHE_TRUSTED_KEYS", &public_key),
        ];
        for (name, value) in settings {
            let value = value.to_owned();
            variables.entry(name.to_owned()).or_insert(value);
        }
        let site = checkout(&surroundings, &format!("job-{number}"));
        let done = site.shell(&job.script, &variables);
        assert_eq!(done.status, 0, "{job:?}: {}", done.stderr);
        let secret = service.private_key.trim();
        assert!(!done.stderr.contains(secret) && !done.stdout.contains(secret));
        if variables.contains_key("FOREBAY_CACHE") {
            let found = done.stderr.contains("nothing was built");
            assert_eq!(found, !first_of_cache, "{job:?}: {}", done.stderr);
            first_of_cache = false;
            continue;
        }
        // Without a bucket: the service packs the folder, and unpacks it on another machine at
        // another place.
        let other = checkout(&surroundings, &format!("after-job-{number}"));
        let folder = variables["FOREBAY_STORE"].clone();
        let (from, to) = (site.project.display(), other.project.display());
        let pack = format!("tar -C {from} -cf - {folder} | tar -C {to} -xf -");
        let packed = other.shell(&pack, &variables);
        assert_eq!(packed.status, 0, "{}", packed.stderr);
        let built = other.shell("forebay build -c prod", &variables);
        assert_eq!(built.status, 0, "{}", built.stderr);
        let starts = other.starts();
        assert!(
            starts.iter().all(|start| !start.contains("pip")),
            "{starts:?}"
        );
    }
    assert!(!first_of_cache);
}
