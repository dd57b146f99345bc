//! Where STS is.

use super::super::failure::Failure;
use super::super::roots::{Roots, is_of};

/// The region if the connection names none. Credentials of a region's own STS are valid in all regions.
const DEFAULT_REGION: &str = "us-east-1";
/// The partitions other than `aws`, by the beginning of their regions: partition and domain.
const PARTITIONS: [(&str, &str, &str); 7] = [
    ("cn-", "aws-cn", "amazonaws.com.cn"),
    ("eu-isoe-", "aws-iso-e", "cloud.adc-e.uk"),
    ("eusc-", "aws-eusc", "amazonaws.eu"),
    ("us-gov-", "aws-us-gov", "amazonaws.com"),
    ("us-iso-", "aws-iso", "c2s.ic.gov"),
    ("us-isob-", "aws-iso-b", "sc2s.sgov.gov"),
    ("us-isof-", "aws-iso-f", "csp.hci.ic.gov"),
];

/// STS of no region.
const GLOBAL: &str = "sts.amazonaws.com";

/// The endpoint of STS.
pub struct Endpoint<'a> {
    /// The region that requests are signed for.
    pub region: &'a str,
    /// The partition, as in ARNs.
    pub partition: &'static str,
    /// The URL.
    pub url: String,
    /// The host, with its port unless that is the scheme's own.
    pub host: String,
    /// The path; at least `/`.
    pub path: String,
}

impl<'a> Endpoint<'a> {
    /// The endpoint that a connection's fields name: `sts_url`, or that of `region`.
    ///
    /// # Errors
    /// If a field has another form.
    pub fn of(roots: Roots<'a>) -> Result<Self, Failure> {
        let region = roots.checked("region", "an AWS region", |text| is_of(text, "-"))?;
        let region = region.unwrap_or(DEFAULT_REGION);
        let special = PARTITIONS.iter().find(|(start, ..)| region.starts_with(start));
        let (partition, domain) = special
            .map_or(("aws", "amazonaws.com"), |(_, partition, domain)| (*partition, *domain));
        let (scheme, host, path) = match roots.optional("sts_url")? {
            None => ("https://", format!("sts.{region}.{domain}"), "/".to_owned()),
            Some(url) => parse(url).ok_or_else(|| {
                let form =
                    "is no URL as https://HOST[:PORT][/PATH], without user, query and escapes";
                Failure::field("sts_url", form)
            })?,
        };
        Ok(Self { region, partition, url: format!("{scheme}{host}{path}"), host, path })
    }

    /// True if the endpoint is Amazon's own, whoever wrote the connection: no bucket, load balancer or private service has
    /// such a name.
    pub fn is_amazons(&self) -> bool {
        let mut domains = PARTITIONS.iter().map(|(.., domain)| *domain);
        let is_regional = domains.any(|domain| {
            let names = self.host.strip_suffix(domain).and_then(|names| names.strip_suffix('.'));
            let region = names.and_then(|names| {
                names.strip_prefix("sts.").or_else(|| names.strip_prefix("sts-fips."))
            });
            region.is_some_and(is_region)
        });
        self.url.starts_with("https://") && (is_regional || self.host == GLOBAL)
    }
}

/// True for names as `eu-west-1`. `s3` and `s3-us-west-2` are none.
fn is_region(text: &str) -> bool {
    text.rsplit_once('-').is_some_and(|(area, number)| {
        let is_word = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
        let is_number = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
        is_number && area.contains('-') && area.split('-').all(is_word)
    })
}

/// Scheme, host and path of a URL that needs no normalisation, which the signature would depend on.
fn parse(url: &str) -> Option<(&'static str, String, String)> {
    let (scheme, port, rest) = match url.strip_prefix("https://") {
        Some(rest) => ("https://", ":443", rest),
        None => ("http://", ":80", url.strip_prefix("http://")?),
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
    let path = if path.is_empty() { "/" } else { path };
    let mut segments = path.split('/').skip(1).peekable();
    let is_plain = std::iter::from_fn(|| Some((segments.next()?, segments.peek().is_none()))).all(
        |(segment, is_last)| !matches!(segment, "." | "..") && (is_last || !segment.is_empty()),
    );
    let is_right = is_of(&host, ".-:[]") && is_of(&format!("a{path}"), "/._~-") && is_plain;
    is_right.then(|| (scheme, host, path.to_owned()))
}
