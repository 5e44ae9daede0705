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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::test_server;
    use crate::http::HttpOptions;

    fn http() -> HttpClient {
        HttpClient::new(&HttpOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn only_googles_own_server_is_believed() {
        let (google, _) = test_server::start("Metadata-Flavor: Google\r\n", "a@b");
        assert!(is_available(&http(), Some(&google)).await);
        let (other, _) = test_server::start("", "a@b");
        assert!(!is_available(&http(), Some(&other)).await);
        assert!(!is_available(&http(), Some("127.0.0.1:1")).await);
        assert!(!is_available(&http(), Some("not a host")).await);
    }

    /// The clock of the test runs as soon as everybody waits.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_none() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = listener.local_addr().unwrap().to_string();
        let began = tokio::time::Instant::now();
        assert!(!is_available(&http(), Some(&silent)).await);
        assert_eq!(began.elapsed().as_secs(), TIMEOUT.as_secs());
    }
}
