//! How a kind's short-lived credentials are made.

use serde::{Deserialize, Serialize};

/// The protocol by which a kind's credential is made upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// AWS STS, AssumeRole.
    AwsSts,
    /// AWS STS, AssumeRoleWithWebIdentity, with a token of the broker's issuer.
    AwsWebIdentity,
    /// Microsoft Entra ID, client secret, for Azure or the API that the connection names.
    Entra,
    /// Microsoft Entra ID, client secret, for Microsoft Graph.
    EntraGraph,
    /// A Google service account's access token.
    Gcp,
    /// Google's workload identity federation, with a token of the broker's issuer.
    GcpWebIdentity,
    /// A GitHub App's installation token.
    GithubApp,
    /// The broker's own issuer of tokens.
    OidcIssuer,
    /// OAuth 2.0, client credentials.
    Oauth2Client,
    /// A login role of PostgreSQL.
    Postgres,
    /// OAuth 2.0, a refresh token, which the upstream may replace with each use.
    Oauth2Refresh,
    /// A first HTTP request, whose reply has the access token.
    TwoStep,
}

impl Source {
    /// All protocols.
    pub const ALL: [Self; 12] = [
        Self::AwsSts,
        Self::AwsWebIdentity,
        Self::Entra,
        Self::EntraGraph,
        Self::Gcp,
        Self::GcpWebIdentity,
        Self::GithubApp,
        Self::OidcIssuer,
        Self::Oauth2Client,
        Self::Oauth2Refresh,
        Self::Postgres,
        Self::TwoStep,
    ];

    /// True if it needs a token of the broker's own issuer.
    pub fn needs_issuer(self) -> bool {
        matches!(self, Self::AwsWebIdentity | Self::GcpWebIdentity | Self::OidcIssuer)
    }

    /// True if an upstream may end a credential before its own end.
    pub fn can_be_ended(self) -> bool {
        matches!(self, Self::GithubApp | Self::Oauth2Client | Self::Postgres)
    }

    /// True if a credential is something with a name of ours upstream, by which the upstream lists and ends it. It stays there when
    /// it has expired, so it is ended however late. Every other credential is ended by its own value, or only expires.
    pub fn ends_by_name(self) -> bool {
        match self {
            Self::Postgres => true,
            Self::AwsSts
            | Self::AwsWebIdentity
            | Self::Entra
            | Self::EntraGraph
            | Self::Gcp
            | Self::GcpWebIdentity
            | Self::GithubApp
            | Self::OidcIssuer
            | Self::Oauth2Client
            | Self::Oauth2Refresh
            | Self::TwoStep => false,
        }
    }

    /// The name in data files, lines and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::AwsSts => "aws_sts",
            Self::AwsWebIdentity => "aws_web_identity",
            Self::Entra => "entra",
            Self::EntraGraph => "entra_graph",
            Self::Gcp => "gcp",
            Self::GcpWebIdentity => "gcp_web_identity",
            Self::GithubApp => "github_app",
            Self::OidcIssuer => "oidc_issuer",
            Self::Oauth2Client => "oauth2_client",
            Self::Postgres => "postgres",
            Self::Oauth2Refresh => "oauth2_refresh",
            Self::TwoStep => "two_step",
        }
    }

    /// True if each opening has a credential for itself, because the upstream's audit log tells who used the credential, or
    /// the upstream can end it. `has` tells whether the connection has a field.
    pub fn is_own(self, has: impl FnOnce(&str) -> bool) -> bool {
        match self {
            Self::AwsSts
            | Self::AwsWebIdentity
            | Self::GcpWebIdentity
            | Self::GithubApp
            | Self::OidcIssuer
            | Self::Postgres => true,
            Self::Oauth2Client => has("revocation_url"),
            Self::Entra | Self::EntraGraph | Self::Gcp | Self::Oauth2Refresh | Self::TwoStep => {
                false
            }
        }
    }

    /// How many credentials one connection may have made at a time. A database has few places for logins, and a refresh
    /// token is used once.
    pub fn flights_of_one(self) -> usize {
        match self {
            Self::Oauth2Refresh => 1,
            Self::Postgres => 4,
            _ => 16,
        }
    }

    /// True if using the root may replace it: the upstream is asked once at a time, and what it gives is kept before it is
    /// used.
    pub fn rotates(self) -> bool {
        self == Self::Oauth2Refresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_the_same_name_everywhere() {
        for source in Source::ALL {
            assert_eq!(serde_json::to_value(source).unwrap(), source.name());
        }
    }
}
