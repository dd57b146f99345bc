//! The container credentials endpoint of AWS SDKs.

use std::net::SocketAddrV4;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::json;

use super::answer;
use super::broker::MaskedBroker;
use crate::cli::io::failure::Failure;
use crate::cli::step::format::aws_container;
use crate::integration;
use crate::model::{IntegrationName, Reference};
use crate::sys::local_http::HttpResponse;

/// The path of the endpoint.
pub const PATH: &str = "/aws/credentials";

/// The endpoint of one connection.
pub struct AwsEndpoint {
    reference: Reference,
    broker: Arc<MaskedBroker>,
    /// The region of the connection, if it has one.
    region: Option<String>,
}

impl AwsEndpoint {
    /// Resolves the connection once, so that a refusal shows before the command runs. Fails if the connection gives
    /// no access key of AWS.
    pub async fn open(reference: Reference, broker: Arc<MaskedBroker>) -> Result<Self, Failure> {
        let credential = broker.resolve(&reference, Vec::new()).await?;
        aws_container(&credential)?;
        let region = credential.fields.iter().find(|(name, _)| name.as_str() == "region");
        let region = region.and_then(|(_, value)| std::str::from_utf8(value.expose()).ok());
        let region = region.map(ToOwned::to_owned);
        Ok(Self { reference, broker, region })
    }

    /// The variables by which SDKs find the endpoint.
    pub fn variables(&self, address: SocketAddrV4, token: &str) -> Vec<(String, String)> {
        let url = format!("http://{address}{PATH}");
        let regions =
            ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().zip(self.region.iter().cycle());
        let regions = regions.map(|(name, region)| (name.to_owned(), region.clone()));
        let own = [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), url),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN".to_owned(), token.to_owned()),
            // SDKs prefer a default profile of these files to an endpoint.
            ("AWS_SHARED_CREDENTIALS_FILE".to_owned(), "/dev/null".to_owned()),
            ("AWS_CONFIG_FILE".to_owned(), "/dev/null".to_owned()),
        ];
        own.into_iter().chain(regions).collect()
    }

    /// The current credential, with the end of it that tools are told.
    pub async fn answer(&self) -> HttpResponse {
        let resolved = self.broker.resolve(&self.reference, Vec::new()).await;
        match resolved.and_then(|credential| aws_container(&credential)) {
            Ok(body) => answer::json(StatusCode::OK, &body),
            Err(failure) => {
                // SDKs ask again after one status, and not after the other.
                let may_pass =
                    failure.is_of_the_connection() || failure.reason == "UPSTREAM_UNAVAILABLE";
                let status = match may_pass {
                    true => StatusCode::SERVICE_UNAVAILABLE,
                    false => StatusCode::FORBIDDEN,
                };
                answer::json(status, &json!({ "code": failure.reason, "message": failure.message }))
            }
        }
    }
}

/// Variables that SDKs prefer to this endpoint.
pub fn shadowing() -> Vec<String> {
    let aws = IntegrationName::parse("aws").ok().and_then(|name| integration::find(&name));
    let listed = aws.map(|aws| aws.shadowing.clone()).unwrap_or_default();
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(ToOwned::to_owned);
    listed.into_iter().chain(keys).collect()
}
