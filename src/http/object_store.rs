//! Lets the `object_store` library use our connections: one pool, one TLS setup,
//! one idea of how long a connection may stand still.

use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient as ForeignClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};
use url::Url;

use super::{HttpClient, TlsProblem};

/// What a request body may have in bytes to be sent under a limit of time.
const SMALL: usize = 1 << 20;

/// To be given to a builder's `with_http_connector`. The builder's own
/// `ClientOptions` about certificates, proxies and times are not looked at.
impl HttpConnector for HttpClient {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<ForeignClient> {
        Ok(ForeignClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for HttpClient {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        let unusable = |error| HttpError::new(HttpErrorKind::Unknown, error);
        let url = Url::parse(&parts.uri.to_string()).map_err(unusable)?;
        let builder = match body.content_length() {
            ..=SMALL => self.request(parts.method, url),
            _ => (self.streaming_request(parts.method, url))
                .map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?,
        };
        let builder = match body.as_bytes() {
            Some(bytes) => builder.body(bytes.clone()),
            None => builder.body(reqwest::Body::wrap(body)),
        };
        let answer = (builder.headers(parts.headers).send().await).map_err(http_error)?;
        let mut answer: Response<reqwest::Body> = answer.into();
        let headers: HeaderMap = std::mem::take(answer.headers_mut());
        let status = answer.status();
        let body = HttpResponseBody::new(answer.into_body().map_err(http_error));
        let mut answer = HttpResponse::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

/// Which failures the library then repeats: all whose request is idempotent,
/// but for what TLS refuses.
fn http_error(error: reqwest::Error) -> HttpError {
    let kind = if error.is_builder() || TlsProblem::among(&error).is_some() {
        HttpErrorKind::Unknown
    } else if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_decode() {
        HttpErrorKind::Decode
    } else {
        HttpErrorKind::Interrupted
    };
    HttpError::new(kind, error.without_url())
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3Builder;
    use object_store::path::Path;
    use object_store::{ObjectStoreExt as _, PutPayload};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::http::HttpOptions;

    /// What the library sends goes over our client, signed, with its length and whole.
    #[tokio::test]
    async fn requests_arrive_as_they_were_signed() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let received = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"the bytes") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            let answer = b"HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            String::from_utf8(request).unwrap().to_lowercase()
        });
        let store = AmazonS3Builder::new()
            .with_endpoint(format!("http://{address}"))
            .with_bucket_name("bucket")
            .with_access_key_id("id")
            .with_secret_access_key("secret")
            .with_http_connector(HttpClient::new(&HttpOptions::default()).unwrap())
            .build()
            .unwrap();
        let payload = PutPayload::from_iter(["the ", "bytes"].map(bytes::Bytes::from));
        let path = Path::parse("a b").unwrap();
        let put = store.put(&path, payload).await.unwrap();
        assert_eq!(put.e_tag.as_deref(), Some("\"1\""));
        let received = received.await.unwrap();
        assert!(
            received.starts_with("put /bucket/a%20b http/1.1"),
            "{received}"
        );
        assert!(received.contains("user-agent: forebay/"), "{received}");
        assert!(
            received.contains("authorization: aws4-hmac-sha256"),
            "{received}"
        );
        assert!(received.contains("content-length: 9"), "{received}");
    }
}
