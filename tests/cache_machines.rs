//! What one machine has built, another takes: safely, and with few requests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::path::{Path, PathBuf};

#[path = "support/forebay.rs"]
#[allow(dead_code)]
mod forebay_support;

#[path = "support/caches.rs"]
#[allow(dead_code)]
mod caches;

use caches::{Site, Surroundings, requests};

/// Every file of the cache, by its place below it.
fn files(cache: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(cache)
        .sort_by_file_name()
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.path().to_owned())
        .filter(|path| !path.ends_with(".forebay-lock"))
        .collect()
}

#[test]
fn a_second_machine_takes_what_the_first_has_built() {
    let Some(surroundings) = Surroundings::new() else {
        return;
    };
    let url = surroundings.cache_url();
    let first = surroundings.site("first", "UTC", "022");
    let (key, file) = first.keygen("release");
    let first = first.with_variable("FOREBAY_CACHE_SIGNING_KEY_FILE", &file);
    let (built, said) = first.build(&["--cache", &url]);
    assert!(said.contains("entries and"), "{said}");

    let second = surroundings
        .site("second", "Asia/Tokyo", "077")
        .with_variable("FOREBAY_CACHE", &url)
        .with_variable("FOREBAY_CACHE_TRUSTED_KEYS", &key);
    let (taken, said) = second.build(&[]);
    assert_eq!(taken["image"], built["image"]);
    // An hourly workflow starts at another local hour there, as BigFlow has it; others do not.
    let daily = "greeting__v0_BROKEN__2026_01_01_00_00_00_dag.py";
    assert!(built["dags"][daily].is_string());
    assert_eq!(taken["dags"][daily], built["dags"][daily]);
    assert!(said.contains("nothing was built"), "{said}");
    assert_eq!(requests(&said), 1, "{said}");
    // One Python was asked what it is; none ran pip, and none the project.
    assert_eq!(second.starts().len(), 1, "{:?}", second.starts());
    assert!(first.starts().iter().any(|start| start.contains("pip")));

    // The image goes to a registry that lacks it: what it needs is brought, each thing once.
    let deploy = second.run(&["deploy", "-c", "local", "--json"]);
    assert_eq!(deploy.status, 0, "{}", deploy.stderr);
    assert!(second.project.join(".local/images").exists());

    // Where the registry has it, no layer is downloaded.
    let third = surroundings
        .site("third", "America/New_York", "027")
        .with_variable("FOREBAY_CACHE", &url)
        .with_variable("FOREBAY_CACHE_TRUSTED_KEYS", &key);
    forebay_support::copy_folder(
        &second.project.join(".local"),
        &third.project.join(".local"),
    );
    let deploy = third.run(&["deploy", "-c", "local"]);
    assert_eq!(deploy.status, 0, "{}", deploy.stderr);
    assert_eq!(requests(&deploy.stderr), 1, "{}", deploy.stderr);
    assert!(
        deploy.stderr.contains("nothing was built"),
        "{}",
        deploy.stderr
    );

    // A change builds what it touches, and asks for each of that once.
    let change = surroundings
        .site("change", "UTC", "022")
        .with_variable("FOREBAY_CACHE", &url)
        .with_variable("FOREBAY_CACHE_TRUSTED_KEYS", &key);
    let greeting = change.project.join("hello/greeting.py");
    let text = std::fs::read_to_string(&greeting).unwrap();
    std::fs::write(&greeting, text + "\n# One more line.\n").unwrap();
    let (changed, said) = change.build(&[]);
    assert_ne!(changed["image"], built["image"]);
    assert!(change.starts().iter().all(|start| !start.contains("pip")));
    // This build's entry, the latest one's, and what neither has: layer, image, workflows.
    assert!(requests(&said) <= 2 + 4, "{said}");
}

#[test]
fn only_what_a_trusted_key_has_signed_for_this_recipe_counts() {
    let Some(surroundings) = Surroundings::new() else {
        return;
    };
    let url = surroundings.cache_url();
    let pull_request = surroundings.site("pull-request", "UTC", "022");
    let (own, file) = pull_request.keygen("pull-request");
    let (release, _) = pull_request.keygen("release");
    let pull_request = pull_request.with_variable("FOREBAY_CACHE_SIGNING_KEY_FILE", &file);
    let (built, _) = pull_request.build(&["--cache", &url]);
    let look = |name: &str, keys: &str| {
        let site = surroundings
            .site(name, "UTC", "022")
            .with_variable("FOREBAY_CACHE", &url)
            .with_variable("FOREBAY_CACHE_TRUSTED_KEYS", keys);
        let (document, said) = site.build(&[]);
        assert_eq!(document, built);
        (
            said,
            site.starts().iter().any(|start| start.contains("pip")),
        )
    };
    let (said, built_it) = look("trusting", &format!("{release} {own}"));
    assert!(!built_it && !said.contains("warning: the cache"), "{said}");
    let (said, built_it) = look("release-job", &release);
    assert!(built_it && !said.contains("warning: the cache"), "{said}");

    // Passed off as the release's: by name, or replayed under another recipe's.
    let cache = surroundings.cache().join("forebay-cache/v1/entries");
    let entries = files(&cache.join("pull-request"));
    std::fs::create_dir(cache.join("release")).unwrap();
    for entry in &entries {
        let name = entry.file_name().unwrap();
        std::fs::copy(entry, cache.join("release").join(name)).unwrap();
    }
    let (said, built_it) = look("deceived", &release);
    assert!(
        built_it && said.matches("warning: the cache").count() == 1,
        "{said}"
    );
    for (entry, other) in entries.iter().zip(entries.iter().cycle().skip(1)) {
        std::fs::copy(
            entry,
            cache.join("release").join(other.file_name().unwrap()),
        )
        .unwrap();
    }
    for entry in &entries {
        let name = entry.file_name().unwrap();
        std::fs::rename(cache.join("release").join(name), entry).unwrap();
    }
    let (said, built_it) = look("replayed", &own);
    assert!(
        built_it && said.contains("no trusted key has signed it"),
        "{said}"
    );
    assert_eq!(said.matches("warning: the cache").count(), 1, "{said}");
}

#[test]
fn damage_is_built_again_and_mended() {
    let Some(surroundings) = Surroundings::new() else {
        return;
    };
    let url = surroundings.cache_url();
    let first = surroundings.site("first", "UTC", "022");
    let export = ["--export-image-tar", "--cache", &url];
    let (built, said) = first.build(&[&export[..], &["--cache-write"]].concat());
    assert!(!said.contains("warning: the cache"), "{said}");
    let exported =
        |site: &Site| std::fs::read(site.project.join(".image/image-0+BROKEN.tar")).unwrap();
    let image = exported(&first);
    let whole = files(&surroundings.cache());
    assert!(whole.len() > 10, "{whole:?}");
    let contents: Vec<Vec<u8>> = whole
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let is_object = |path: &Path| path.components().any(|part| part.as_os_str() == "objects");
    let one_by_one = (0..whole.len()).map(|number| (vec![number], number));
    let of_a_kind = |objects: bool| -> Vec<usize> {
        let kind = (0..whole.len()).filter(|number| is_object(&whole[*number]) == objects);
        kind.collect()
    };
    let together = (0..3).flat_map(|how| [(of_a_kind(true), how), (of_a_kind(false), how)]);
    for (number, (damaged, how)) in one_by_one.chain(together).enumerate() {
        for &file in &damaged {
            damage(&whole[file], &contents[file], how % 3);
        }
        let site = surroundings.site(&format!("site-{number}"), "UTC", "022");
        let (document, said) = site.build(&[&export[..], &["--cache-write"]].concat());
        assert_eq!(document["dags"], built["dags"]);
        assert_eq!(document["image"], built["image"]);
        let names: Vec<_> = damaged.iter().map(|file| &whole[*file]).collect();
        assert!(exported(&site) == image, "{names:?}");
        assert!(said.matches("warning: the cache").count() <= 1, "{said}");
        std::fs::remove_dir_all(site.project.parent().unwrap()).unwrap();

        // What was in the way is mended: the next machine finds all of it.
        if damaged.len() > 1 {
            let site = surroundings.site(&format!("after-{number}"), "UTC", "022");
            let (_, said) = site.build(&export);
            assert!(said.contains("nothing was built"), "{said}");
            assert!(!said.contains("warning: the cache"), "{said}");
            std::fs::remove_dir_all(site.project.parent().unwrap()).unwrap();
        }
        for &file in &damaged {
            std::fs::write(&whole[file], &contents[file]).unwrap();
        }
    }
}

fn damage(path: &Path, bytes: &[u8], how: usize) {
    match how {
        0 => {
            let mut flipped = bytes.to_vec();
            flipped[bytes.len() / 2] ^= 0x10;
            std::fs::write(path, flipped).unwrap();
        }
        1 => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
        _ => std::fs::remove_file(path).unwrap(),
    }
}
