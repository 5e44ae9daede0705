//! What the targets of `fuzz/` call: each takes any bytes, makes of them what a stranger might
//! hand to one of the rooms, and panics if a promise does not hold. Each room has its own.
//!
//! The seeds of the fuzzer, and the inputs that it has found, are read by the test below too.
#![allow(missing_docs)]

pub use crate::artifacts::fuzzing::lock_file;
pub use crate::bucket::fuzzing::bucket_answer;
pub use crate::cache::fuzzing::cache_entry;
pub use crate::credentials::fuzzing::docker_config;
pub use crate::dags::fuzzing::dag_file;
pub use crate::environment::fuzzing::environment_record;
pub use crate::image::fuzzing::{
    base_layer, container_archive, dockerfile, run_line, saved_image, splice,
};
pub use crate::project::fuzzing::{deployment_config, pyproject};
pub use crate::python::fuzzing::marshal;
pub use crate::registry::fuzzing::{challenge, manifest, reference};
pub use crate::wheels::fuzzing::{requirements, wheel, wheel_metadata};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    /// The seeds of a target; there must be some.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(target);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{}", folder.display());
        let bytes = files.iter().map(|path| std::fs::read(path).unwrap());
        bytes.collect()
    }

    /// What happens to an input, at places that are reckoned modulo its length.
    #[derive(Debug, Clone)]
    enum Edit {
        Flip(usize, u8),
        Set(usize, u8),
        Insert(usize, Vec<u8>),
        Delete(usize, usize),
        /// Some of its own bytes once more, elsewhere.
        Repeat(usize, usize, usize),
    }

    fn edit() -> impl Strategy<Value = Edit> {
        let place = any::<u16>().prop_map(usize::from);
        let byte = prop_oneof![
            any::<u8>(),
            prop::sample::select(b"\0\n\xff\"'\\${}[](),:=/. -#%<>".to_vec())
        ];
        let few = 1usize..40;
        prop_oneof![
            (place.clone(), 1u8..).prop_map(|(at, bits)| Edit::Flip(at, bits)),
            (place.clone(), byte.clone()).prop_map(|(at, byte)| Edit::Set(at, byte)),
            (place.clone(), prop::collection::vec(byte, 1..6))
                .prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
            (place.clone(), few.clone()).prop_map(|(at, length)| Edit::Delete(at, length)),
            (place.clone(), few, place)
                .prop_map(|(from, length, to)| Edit::Repeat(from, length, to)),
        ]
    }

    fn apply(bytes: &mut Vec<u8>, edit: Edit) {
        let place = |at: usize, bytes: &[u8]| at % (bytes.len() + 1);
        match edit {
            Edit::Flip(at, bits) => {
                let at = place(at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Edit::Set(at, value) => {
                let at = place(at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            Edit::Insert(at, new) => {
                let at = place(at, bytes);
                bytes.splice(at..at, new);
            }
            Edit::Delete(at, length) => {
                let at = place(at, bytes);
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            Edit::Repeat(from, length, to) => {
                let from = place(from, bytes);
                let end = (from + length).min(bytes.len());
                let again = bytes[from..end].to_vec();
                let to = place(to, bytes);
                bytes.splice(to..to, again);
            }
        }
    }

    /// Tests of a target: its seeds, and what a few edits make of them. `PROPTEST_CASES` says how
    /// many of those, for a search that takes longer.
    macro_rules! replayed {
        ($($target:ident)*) => {
            $(mod $target {
                use super::*;

                #[test]
                fn what_was_found_does_no_harm() {
                    seeds(stringify!($target)).iter().for_each(|seed| crate::fuzzing::$target(seed));
                }

                proptest! {
                    #[test]
                    fn what_is_like_it_does_no_harm(
                        seed in prop::sample::select(seeds(stringify!($target))),
                        edits in prop::collection::vec(edit(), 1..8),
                    ) {
                        let mut bytes = seed;
                        edits.into_iter().for_each(|edit| apply(&mut bytes, edit));
                        crate::fuzzing::$target(&bytes);
                    }
                }
            })*
        };
    }

    replayed! {
        base_layer bucket_answer cache_entry challenge container_archive dag_file
        deployment_config docker_config dockerfile environment_record lock_file manifest marshal
        pyproject reference requirements run_line saved_image splice wheel wheel_metadata
    }
}
