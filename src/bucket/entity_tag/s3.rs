//! S3 and those who speak its protocol (Amazon S3 API reference, 2006-03-01).

use async_trait::async_trait;
use http::StatusCode;
use http::header::{ETAG, HeaderMap, HeaderName};
use jiff::Timestamp;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequest;
use serde::Deserialize;
use url::Url;

use super::super::ObjectKey;
use super::super::exchange::{Answer, Permissions, escape};
use super::dialect::{Dialect, ErrorBody, ListedObject, ListedPage};
use super::{Shared, credential_retries, settings};
use crate::http::{HttpClient, is_transient_status};

pub(super) struct S3 {
    /// The bucket's own address, without a slash at its end.
    base: Url,
    region: String,
    /// None to ask anonymously.
    credentials: Option<Shared<AwsCredential>>,
}

impl S3 {
    pub(super) fn new(
        name: &str,
        variables: &[(String, String)],
        http: &HttpClient,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let mut builder = AmazonS3Builder::new()
            .with_retry(credential_retries())
            .with_http_connector(http.clone());
        for (name, value) in settings(variables, "AWS_") {
            // Variables of other programs are no settings of the library.
            if let Ok(key) = name.parse() {
                builder = builder.with_config(key, value);
            }
        }
        builder = builder.with_bucket_name(name);
        let value = |key| {
            builder
                .get_config_value(&key)
                .filter(|text| !text.is_empty())
        };
        let is_on = |key| value(key).is_some_and(|text| text == "true");
        let region = value(AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
        let endpoint = value(AmazonS3ConfigKey::S3Endpoint);
        let endpoint = endpoint.or_else(|| value(AmazonS3ConfigKey::Endpoint));
        let hosted = is_on(AmazonS3ConfigKey::VirtualHostedStyleRequest);
        let anonymous = is_on(AmazonS3ConfigKey::SkipSignature);
        let base = match (endpoint, hosted) {
            (Some(endpoint), true) => endpoint,
            (Some(endpoint), false) => format!("{}/{name}", endpoint.trim_end_matches('/')),
            (None, true) => format!("https://{name}.s3.{region}.amazonaws.com"),
            (None, false) => format!("https://s3.{region}.amazonaws.com/{name}"),
        };
        let base = Url::parse(base.trim_end_matches('/'))?;
        let store = builder.build()?;
        Ok(Self {
            base,
            region,
            credentials: (!anonymous).then(|| store.credentials().clone()),
        })
    }
}

/// The answer to `ListObjectsV2`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBucketResult {
    #[serde(default)]
    contents: Vec<Contents>,
    #[serde(default)]
    is_truncated: bool,
    next_continuation_token: Option<String>,
    encoding_type: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Contents {
    key: String,
    last_modified: Timestamp,
    #[serde(rename = "ETag")]
    tag: String,
    size: u64,
}

/// The tag of an object that was written at once and without a key of one's own is its MD5.
fn md5_of_tag(tag: &str) -> Option<[u8; 16]> {
    let mut md5 = [0; 16];
    hex::decode_to_slice(tag.trim_matches('"'), &mut md5).ok()?;
    Some(md5)
}

/// A form's escapes undone. What is no UTF-8 becomes a key that nobody can write.
fn unescape(text: &str) -> String {
    let name = format!("k={text}");
    let mut pairs = url::form_urlencoded::parse(name.as_bytes());
    pairs
        .next()
        .map(|(_, key)| key.into_owned())
        .unwrap_or_default()
}

pub(super) fn page(body: &[u8]) -> Option<ListedPage> {
    let list: ListBucketResult = quick_xml::de::from_str(std::str::from_utf8(body).ok()?).ok()?;
    let escaped = list.encoding_type.as_deref() == Some("url");
    let objects = list.contents.into_iter().map(|object| ListedObject {
        key: match escaped {
            true => unescape(&object.key),
            false => object.key,
        },
        size: object.size,
        md5: md5_of_tag(&object.tag),
        tag: object.tag,
        updated: object.last_modified,
    });
    Some(ListedPage {
        objects: objects.collect(),
        next: match list.is_truncated {
            true => Some(list.next_continuation_token?),
            false => None,
        },
    })
}

#[async_trait]
impl Dialect for S3 {
    async fn authorize(&self, request: &mut HttpRequest) -> object_store::Result<()> {
        match &self.credentials {
            Some(credentials) => {
                let credential = credentials.get_credential().await?;
                AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(request, None)
            }
            None => Ok(()),
        }
    }

    fn identity(&self) -> String {
        match self.credentials {
            Some(_) => "the AWS credentials in use".to_owned(),
            None => "nobody (AWS_SKIP_SIGNATURE is set)".to_owned(),
        }
    }

    fn permissions(&self) -> Permissions {
        Permissions {
            list: "s3:ListBucket",
            read: "s3:GetObject",
            write: "s3:PutObject",
            delete: "s3:DeleteObject",
        }
    }

    fn object_url(&self, key: &ObjectKey) -> Url {
        let mut url = self.base.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{path}/{}", escape(key.as_str(), b"/")));
        url
    }

    fn list_url(&self, prefix: &str, marker: Option<&str>) -> Url {
        let mut url = self.base.clone();
        // Keys may have characters that XML cannot have.
        let mut query = "list-type=2&encoding-type=url&max-keys=1000&prefix=".to_owned();
        query.push_str(&escape(prefix, b""));
        if let Some(marker) = marker {
            query.push_str("&continuation-token=");
            query.push_str(&escape(marker, b""));
        }
        url.set_query(Some(&query));
        url
    }

    fn parse_page(&self, body: &[u8]) -> Option<ListedPage> {
        page(body)
    }

    fn nonce_header(&self) -> HeaderName {
        HeaderName::from_static("x-amz-meta-forebay-nonce")
    }

    /// The tag is the MD5 of the bytes.
    fn tags_writes(&self) -> bool {
        false
    }

    /// Amazon's own does since 2025; many others do not look at the header.
    fn holds_to_conditions(&self) -> bool {
        false
    }

    fn md5(&self, headers: &HeaderMap) -> Option<[u8; 16]> {
        let encryption = headers.get("x-amz-server-side-encryption");
        match encryption {
            Some(kind) if kind.as_bytes().starts_with(b"aws:kms") => None,
            _ => md5_of_tag(headers.get(ETAG)?.to_str().ok()?),
        }
    }

    fn is_condition_failed(&self, status: StatusCode, body: &[u8]) -> bool {
        // A condition on what does not exist is answered so.
        let gone = status == StatusCode::NOT_FOUND && !self.is_bucket_missing(body);
        gone || status == StatusCode::PRECONDITION_FAILED
    }

    fn is_bucket_missing(&self, body: &[u8]) -> bool {
        ErrorBody::is(body, &["NoSuchBucket"])
    }

    fn is_transient(&self, answer: &Answer) -> bool {
        match answer.status {
            StatusCode::NOT_IMPLEMENTED => false,
            // Two conditional writes at once: one of them has to come again.
            StatusCode::CONFLICT => ErrorBody::is(
                &answer.body,
                &["ConditionalRequestConflict", "OperationAborted"],
            ),
            status => is_transient_status(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HttpOptions;

    fn s3(variables: &[(&str, &str)]) -> S3 {
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
        let variables = variables.iter().chain(&keys);
        let variables: Vec<_> = variables
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let http = HttpClient::new(&HttpOptions::default()).unwrap();
        S3::new("bucket", &variables, &http).unwrap()
    }

    #[test]
    fn the_address_is_made_of_what_users_set() {
        let key: ObjectKey = "dags/a b+.py".parse().unwrap();
        for (variables, expected) in [
            (vec![], "https://s3.us-east-1.amazonaws.com/bucket/"),
            (
                vec![("AWS_DEFAULT_REGION", "eu-west-1")],
                "https://s3.eu-west-1.amazonaws.com/bucket/",
            ),
            (
                vec![
                    ("AWS_REGION", "x"),
                    ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"),
                ],
                "https://bucket.s3.x.amazonaws.com/",
            ),
            (
                vec![("AWS_ENDPOINT_URL", "http://127.0.0.1:9000/")],
                "http://127.0.0.1:9000/bucket/",
            ),
            (
                vec![
                    ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000"),
                    ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9001"),
                ],
                "http://127.0.0.1:9001/bucket/",
            ),
        ] {
            let url = s3(&variables).object_url(&key);
            assert_eq!(url.as_str(), format!("{expected}dags/a%20b%2B.py"));
        }
    }

    #[test]
    fn odd_keys_and_tags_do_not_spoil_a_listing() {
        let page = |text: &str| s3(&[]).parse_page(text.as_bytes());
        let listing = r#"<?xml version="1.0"?>
            <ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Name>b</Name><IsTruncated>true</IsTruncated><EncodingType>url</EncodingType>
              <NextContinuationToken>1+/=</NextContinuationToken>
              <Contents><Key>dags//a+b%2B.py</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>
                <ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>0</Size></Contents>
              <Contents><Key>dags/%FF%01</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>
                <ETag>"aa-2"</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass></Contents>
            </ListBucketResult>"#;
        let read = page(listing).unwrap();
        assert_eq!(read.next.as_deref(), Some("1+/="));
        assert_eq!(read.objects[0].key, "dags//a b+.py");
        assert!(read.objects[0].md5.is_some());
        assert_eq!(read.objects[1].key, "dags/\u{fffd}\u{1}");
        assert_eq!(read.objects[1].md5, None);

        assert_eq!(page("<ListBucketResult/>").unwrap().objects, []);
        assert_eq!(
            page("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"),
            None
        );
        assert_eq!(page(&listing.replace("<Size>7", "<Size>-7")), None);
        assert_eq!(page("<html>"), None);
    }

    #[test]
    fn a_tag_under_somebodys_own_key_is_no_checksum() {
        let mut headers = HeaderMap::new();
        headers.insert(
            ETAG,
            "\"d41d8cd98f00b204e9800998ecf8427e\"".parse().unwrap(),
        );
        assert!(s3(&[]).md5(&headers).is_some());
        headers.insert("x-amz-server-side-encryption", "aws:kms".parse().unwrap());
        assert_eq!(s3(&[]).md5(&headers), None);
    }
}
