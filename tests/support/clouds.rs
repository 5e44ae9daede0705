//! Buckets of S3 and Azure in emulators.

use forebay::bucket::EntityTagBucket;
use forebay::http::{HttpClient, HttpOptions};
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpRequest, HttpRequestBody};

use super::emulator::Emulator;

fn http() -> HttpClient {
    HttpClient::new(&HttpOptions::default()).unwrap()
}

fn variables<const N: usize>(pairs: [(&str, &str); N]) -> Vec<(String, String)> {
    let pairs = pairs.into_iter();
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// What a user would set to reach the emulator of S3.
pub(crate) fn s3_variables(emulator: &Emulator) -> Vec<(String, String)> {
    variables([
        ("AWS_ENDPOINT_URL", &format!("http://{}", emulator.address)),
        ("AWS_ACCESS_KEY_ID", "tester"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-east-1"),
    ])
}

pub(crate) async fn s3_bucket(emulator: &Emulator, name: &str) -> EntityTagBucket {
    let url = format!("http://{}/{name}", emulator.address);
    let request = http().request(http::Method::PUT, url.parse().unwrap());
    let answer = request.send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    EntityTagBucket::s3(name, &s3_variables(emulator), http()).unwrap()
}

/// What a user would set to reach the emulator of Azure.
pub(crate) fn azure_variables(emulator: &Emulator) -> Vec<(String, String)> {
    let address = format!("http://{}", emulator.address);
    variables([
        ("AZURE_STORAGE_USE_EMULATOR", "true"),
        ("AZURITE_BLOB_STORAGE_URL", &address),
    ])
}

pub(crate) async fn azure_container(emulator: &Emulator, name: &str) -> EntityTagBucket {
    /// The one that every Azurite has, as its documentation says.
    const ACCOUNT: &str = "devstoreaccount1";
    const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
    let url = format!(
        "http://{}/{ACCOUNT}/{name}?restype=container",
        emulator.address
    );
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = http::Method::PUT;
    *request.uri_mut() = url.parse().unwrap();
    let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).unwrap());
    AzureAuthorizer::new(&credential, ACCOUNT)
        .try_authorize(&mut request)
        .unwrap();
    let create = http().request(http::Method::PUT, url.parse().unwrap());
    let create = create.headers(request.headers().clone()).body("");
    let answer = create.send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    EntityTagBucket::azure(name, &azure_variables(emulator), http()).unwrap()
}
