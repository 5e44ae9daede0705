//! Whether this machine has Google's metadata server.

use std::time::Duration;

use http::Method;
use url::Url;

use crate::http::HttpClient;

/// The name that only resolves where there is one.
const HOST: &str = "metadata.google.internal";
/// The longest that finding out may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks for the metadata server and believes only an answer with its mark:
/// other clouds and odd networks answer on that address too.
pub(super) async fn is_available(http: &HttpClient, host: Option<&str>) -> bool {
    let host = host.unwrap_or(HOST);
    let path = "computeMetadata/v1/instance/service-accounts/default/email";
    let Ok(url) = Url::parse(&format!("http://{host}/{path}")) else {
        return false;
    };
    let answer = http
        .request(Method::GET, url)
        .header("metadata-flavor", "Google")
        .send();
    let Ok(Ok(response)) = tokio::time::timeout(TIMEOUT, answer).await else {
        return false;
    };
    let flavor = response.headers().get("metadata-flavor");
    response.status().is_success() && flavor.is_some_and(|value| value == "Google")
}
