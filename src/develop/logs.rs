//! Where a workflow's logs are: links into Google Cloud's Logs Explorer.
//!
//! Composer runs each job as a pod; Cloud Logging keeps what it prints under the pod's labels,
//! which Airflow sets to the ids of DAG and task.

use serde::Serialize;
use url::form_urlencoded::byte_serialize;

/// Links to the logs of one workflow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLinks {
    /// The workflow's id.
    pub workflow: String,
    /// What its jobs print.
    pub jobs: String,
    /// What Kubernetes says about its pods: images that cannot be pulled, memory that ran out.
    pub pods: String,
}

/// The links for `workflow` in the Google Cloud project of its Composer.
pub fn log_links(gcp_project: &str, workflow: &str) -> LogLinks {
    // Every version of a workflow is a DAG of its own, unless ids are stable.
    let of_workflow = format!(
        "labels.\"k8s-pod/dag_id\"=~\"^{}(__v.*)?$\"",
        escaped(workflow)
    );
    let jobs = format!("resource.type=\"k8s_container\"\n{of_workflow}");
    let pods = format!("resource.type=\"k8s_pod\"\n{of_workflow}");
    LogLinks {
        workflow: workflow.to_owned(),
        jobs: link(gcp_project, &jobs),
        pods: link(gcp_project, &pods),
    }
}

fn link(gcp_project: &str, query: &str) -> String {
    let encode = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    format!(
        "https://console.cloud.google.com/logs/query;query={}?project={}",
        encode(query).replace('+', "%20"),
        encode(gcp_project)
    )
}

/// Ids have no other character that means something in a regular expression; a backslash would
/// have to pass through the quotes of the query.
fn escaped(id: &str) -> String {
    id.replace('.', "[.]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_ask_for_every_version_of_the_workflow() {
        let links = log_links("my-project", "word.count");
        assert_eq!(
            links.jobs,
            "https://console.cloud.google.com/logs/query;query=resource.type%3D%22k8s_container%22%0A\
             labels.%22k8s-pod%2Fdag_id%22%3D%7E%22%5Eword%5B.%5Dcount%28__v.*%29%3F%24%22?project=my-project"
        );
        assert!(links.pods.contains("k8s_pod"));
    }
}
