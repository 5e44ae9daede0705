//! What this machine's store keeps for a project, so that `forebay gc` takes
//! nothing that the next command needs.
//!
//! | root | keeps |
//! | --- | --- |
//! | `build/PROJECT/ENVIRONMENT/COMMAND` | every object that the last such build used: what an unchanged one looks up |
//! | `generation/PROJECT/ENVIRONMENT/NUMBER` | record and DAG files of a generation that this machine made live |

use std::collections::BTreeSet;
use std::fmt::Display;

use forebay_store::{ObjectDigest, RootName, Store, StoreError};

/// How many generations of an environment are kept here. The bucket keeps all of them.
const GENERATIONS: usize = 10;

/// Keeps what this run has used under the name of that build. Nothing is written if all
/// of it is kept there already.
///
/// # Errors
/// See [`StoreError`].
pub fn keep_build(
    store: &Store,
    project: &str,
    environment: &str,
    command: &str,
) -> Result<(), StoreError> {
    let Ok(name) = format!("build/{project}/{environment}/{command}").parse::<RootName>() else {
        return Ok(());
    };
    let used = store.used();
    let kept: BTreeSet<ObjectDigest> = store
        .roots()?
        .into_iter()
        .filter(|root| root.name == name)
        .flat_map(|root| root.objects)
        .collect();
    if used.iter().all(|object| kept.contains(object)) {
        return Ok(());
    }
    let mut batch = store.begin()?;
    batch.set_root(&name, &used)?;
    batch.commit()
}

/// Lets go of all but the newest generations of an environment, given as `PROJECT/ENVIRONMENT`.
///
/// # Errors
/// See [`StoreError`].
pub fn keep_newest_generations(
    store: &Store,
    environment: &impl Display,
) -> Result<(), StoreError> {
    let prefix = format!("generation/{environment}/");
    let mut generations: Vec<(u64, RootName)> = store
        .roots()?
        .into_iter()
        .filter_map(|root| {
            let number = root.name.as_str().strip_prefix(&prefix)?.parse().ok()?;
            Some((number, root.name))
        })
        .collect();
    generations.sort_unstable();
    let surplus = generations.len().saturating_sub(GENERATIONS);
    if surplus == 0 {
        return Ok(());
    }
    let mut batch = store.begin()?;
    for (_, name) in generations.iter().take(surplus) {
        batch.remove_root(name)?;
    }
    batch.commit()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_store::CollectOptions;
    use std::time::Duration;

    fn put(store: &Store, text: &str) -> ObjectDigest {
        let mut batch = store.begin().unwrap();
        let digest = batch.put(text.as_bytes()).unwrap().digest;
        batch.commit().unwrap();
        digest
    }

    #[test]
    fn what_the_last_build_used_survives_a_collection_and_what_the_one_before_used_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Store::open(directory.path()).unwrap();
        let store = open();
        let old = put(&store, "old layer");
        let shared = put(&store, "wheel");
        keep_build(&store, "shop", "dev", "build").unwrap();
        drop(store);

        let store = open();
        assert!(store.info(&shared).unwrap().is_some());
        let new = put(&store, "new layer");
        keep_build(&store, "shop", "dev", "build").unwrap();
        drop(store);
        // One that uses a part of it takes nothing away.
        let store = open();
        assert!(store.info(&shared).unwrap().is_some());
        keep_build(&store, "shop", "dev", "build").unwrap();
        drop(store);

        let store = open();
        let options = CollectOptions {
            grace: Duration::ZERO,
            ..CollectOptions::default()
        };
        store.collect(&options).unwrap();
        assert!(store.info(&old).unwrap().is_none());
        assert!(store.info(&shared).unwrap().is_some());
        assert!(store.info(&new).unwrap().is_some());
    }

    #[test]
    fn the_newest_generations_stay() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let object = put(&store, "record");
        let mut batch = store.begin().unwrap();
        for name in (1..=13)
            .map(|number| format!("generation/shop/dev/{number}"))
            .chain(["generation/shop/prod/1".to_owned()])
        {
            batch.set_root(&name.parse().unwrap(), &[object]).unwrap();
        }
        batch.commit().unwrap();
        keep_newest_generations(&store, &"shop/dev").unwrap();
        let names: Vec<_> = store.roots().unwrap().into_iter().map(|r| r.name).collect();
        assert_eq!(names.len(), 11);
        assert!(names.iter().all(|name| !name.as_str().ends_with("/dev/3")));
        assert!(names.iter().any(|name| name.as_str().ends_with("/dev/4")));
    }
}
