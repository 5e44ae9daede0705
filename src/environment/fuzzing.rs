//! See [`crate::fuzzing`].
#![allow(clippy::unwrap_used, missing_docs)]

use super::EnvironmentKey;
use super::head::Head;
use super::record::GenerationRecord;
use super::saved::SavedPlan;

/// What lies in a bucket is refused, or the same when it is written and read again, and no key in
/// it leads outside the DAGs folder.
pub fn environment_record(bytes: &[u8]) {
    let environment = EnvironmentKey {
        project: "shop".parse().unwrap(),
        environment: "dev".parse().unwrap(),
    };
    if let Ok(record) = GenerationRecord::parse(bytes, &environment, "it") {
        assert!(record.dags.keys().all(super::record::may_own));
        if record.refuse_newer().is_ok() {
            let written = record.to_bytes().unwrap();
            assert_eq!(
                GenerationRecord::parse(&written, &environment, "it").unwrap(),
                record
            );
        }
        let _ = (record.state(), record.starts());
    }
    if let Ok(head) = Head::parse(bytes, &environment, "it") {
        if head.refuse_newer().is_ok() {
            let written = head.to_bytes().unwrap();
            assert_eq!(Head::parse(&written, &environment, "it").unwrap(), head);
        }
        let _ = head.describe();
    }
    if let Ok(plan) = SavedPlan::parse(bytes, "it") {
        let _ = plan.starts();
    }
}
