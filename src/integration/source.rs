//! How a kind's short-lived credentials are made.

use serde::{Deserialize, Serialize};

/// The protocol by which a kind's credential is made upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// AWS STS, AssumeRole.
    AwsSts,
    /// Microsoft Entra ID, client secret, for Azure or the API that the connection names.
    Entra,
    /// Microsoft Entra ID, client secret, for Microsoft Graph.
    EntraGraph,
    /// A Google service account's access token.
    Gcp,
    /// OAuth 2.0, client credentials.
    Oauth2Client,
    /// A first HTTP request, whose reply has the access token.
    TwoStep,
}
