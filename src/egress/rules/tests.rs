//! The decision, address by address.

use super::*;

fn rules(allow: &[&str], deny: &[&str]) -> Rules {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    EgressTable { allow: texts(allow), deny: texts(deny), proxy: None }.rules().unwrap()
}

fn to(host: &str) -> Destination {
    Destination { at: HostAndPort { host: host.parse().unwrap(), port: 443 }, is_plain: false }
}

fn decided(rules: &Rules, address: &str, is_private_denied: bool) -> Result<(), Denial> {
    let own = ["198.51.100.7", "2001:db8:5::7"].map(|own| own.parse().unwrap());
    decide(rules, &to("up.example"), address.parse().unwrap(), &own, is_private_denied)
}

/// The first and last addresses of each range that no rule needs to deny, and their neighbours.
const RESERVED_V4: [(&str, &str, &str); 8] = [
    ("0.0.0.0", "0.255.255.255", "1.0.0.0"),
    ("127.0.0.0", "127.255.255.255", "128.0.0.0"),
    ("169.254.0.0", "169.254.255.255", "169.255.0.0"),
    ("192.0.0.0", "192.0.0.255", "192.0.1.0"),
    ("100.100.100.200", "100.100.100.200", "100.100.100.201"),
    ("168.63.129.16", "168.63.129.16", "168.63.129.17"),
    ("224.0.0.0", "239.255.255.255", "223.255.255.255"),
    ("240.0.0.0", "255.255.255.255", "223.255.255.255"),
];
const RESERVED_V6: [(&str, &str, &str); 6] = [
    ("::", "::1", "::102:304"),
    ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fec0::"),
    ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "feff::"),
    ("fd00:ec2::", "fd00:ec2:ffff:ffff:ffff:ffff:ffff:ffff", "fd00:ec3::"),
    ("fd00:ec2::254", "fd00:ec2::23", "fd00:ec1::254"),
    ("fd20:ce::254", "fd20:ce:ffff::", "fd20:cf::254"),
];
const PRIVATE_RANGES: [(&str, &str, &str); 14] = [
    ("10.0.0.0", "10.255.255.255", "11.0.0.0"),
    ("100.64.0.0", "100.127.255.255", "100.128.0.0"),
    ("172.16.0.0", "172.31.255.255", "172.32.0.0"),
    ("192.0.2.0", "192.0.2.255", "192.0.3.0"),
    ("192.168.0.0", "192.168.255.255", "192.169.0.0"),
    ("198.18.0.0", "198.19.255.255", "198.20.0.0"),
    ("198.51.100.0", "198.51.100.255", "198.51.101.0"),
    ("203.0.113.0", "203.0.113.255", "203.0.114.0"),
    ("fc00::", "fdff:ffff::", "fbff::"),
    ("fec0::", "feff::", "fbff::"),
    ("100::", "100::ffff", "101::"),
    ("2001:db8::", "2001:db8:ffff::", "2001:db9::"),
    ("3fff::", "3fff:fff::", "3fff:1000::"),
    ("5f00::", "5f00:ffff::", "5f01::"),
];

/// Every form of IPv6 in which an IPv4 address travels.
fn forms(address: &str) -> Vec<String> {
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let [a, b, c, d] = address.octets();
    let inverted = std::net::Ipv4Addr::from_bits(!address.to_bits());
    let pair = |high: u8, low: u8| format!("{:x}", u16::from_be_bytes([high, low]));
    let (high, low) = (pair(a, b), pair(c, d));
    vec![
        format!("::ffff:{address}"),
        format!("::{address}"),
        format!("::ffff:0:{address}"),
        format!("64:ff9b::{address}"),
        // RFC 6052: prefixes of 96, 48, 56 and 64 bits.
        format!("64:ff9b:1:0:0:0:{address}"),
        format!("64:ff9b:1:{high}:{:x}:{}::", c, pair(d, 0)),
        format!("64:ff9b:1:{}:{}:{}::", pair(0, a), pair(0, b), low),
        format!("64:ff9b:1:0:{}:{}:{}:0", pair(0, a), pair(b, c), pair(d, 0)),
        format!("2002:{high}:{low}::1"),
        format!("2001:0:{high}:{low}:0:0:0:0"),
        format!("2001:0:102:304:0:0:{}", inverted),
    ]
}

#[test]
fn each_reserved_range_is_denied_from_first_to_last() {
    let none = Rules::default();
    for (first, last, outside) in RESERVED_V4.into_iter().chain(RESERVED_V6) {
        for inside in [first, last] {
            assert_eq!(decided(&none, inside, false), Err(Denial::Reserved), "{inside}");
        }
        assert_eq!(decided(&none, outside, false), Ok(()), "{outside}");
    }
}

#[test]
fn a_reserved_address_is_denied_inside_an_ipv6_address() {
    let none = Rules::default();
    for (first, last, outside) in RESERVED_V4 {
        for form in [first, last].into_iter().flat_map(forms) {
            // These are the unspecified address and loopback of IPv6, or have no address of a known form in them.
            let expected = Err(Denial::Reserved);
            assert_eq!(decided(&none, &form, false), expected, "{first} to {last}: {form}");
        }
        // Other forms may be read as another address, which may be reserved.
        for form in forms(outside).into_iter().take(5) {
            assert_eq!(decided(&none, &form, false), Ok(()), "{outside}: {form}");
        }
    }
}

#[test]
fn private_ranges_are_denied_where_a_step_sees_the_reply() {
    let none = Rules::default();
    for (first, last, outside) in PRIVATE_RANGES {
        for inside in [first, last] {
            assert_eq!(decided(&none, inside, true), Err(Denial::Private), "{inside}");
            assert_eq!(decided(&none, inside, false), Ok(()), "{inside}");
        }
        assert_eq!(decided(&none, outside, true), Ok(()), "{outside}");
    }
    for form in forms("10.1.2.3") {
        assert_eq!(decided(&none, &form, true), Err(Denial::Private), "{form}");
    }
    assert_eq!(decided(&none, "127.0.0.1", true), Err(Denial::Reserved));
    assert_eq!(decided(&none, "8.8.8.8", true), Ok(()));
}

#[test]
fn this_hosts_own_addresses_are_denied_in_every_form() {
    let none = Rules::default();
    for own in forms("198.51.100.7").into_iter().chain(["2001:db8:5::7".to_owned()]) {
        assert_eq!(decided(&none, &own, false), Err(Denial::Own), "{own}");
    }
    assert_eq!(decided(&none, "2001:db8:5::8", false), Ok(()));
}

#[test]
fn the_configuration_allows_addresses_and_names() {
    for allow in ["127.0.0.1", "127.0.0.0/8", "0.0.0.0/0", "Up.Example.", "up.example"] {
        let rules = rules(&[allow], &[]);
        assert_eq!(decided(&rules, "127.0.0.1", true), Ok(()), "{allow}");
        assert_eq!(decided(&rules, "::ffff:127.0.0.1", true), Ok(()), "{allow}");
    }
    let nearby = rules(&["127.0.0.2", "p.example", "http://up.example:443", "::1"], &[]);
    assert_eq!(decided(&nearby, "127.0.0.1", false), Err(Denial::Reserved));
    // What the address stands for must be allowed, too.
    let wide = rules(&["10.0.0.0/8"], &[]);
    assert_eq!(decided(&wide, "64:ff9b::127.0.0.1", false), Err(Denial::Reserved));
    assert_eq!(decided(&rules(&["64:ff9b::/96"], &[]), "64:ff9b::127.0.0.1", false), Ok(()));
}

#[test]
fn a_configured_denial_counts_more_than_what_is_allowed() {
    for deny in ["203.0.113.9", "203.0.113.0/24", "up.example", "UP.example."] {
        let rules = rules(&["203.0.113.0/24", "up.example"], &[deny]);
        for form in ["203.0.113.9", "64:ff9b::203.0.113.9"] {
            assert_eq!(decided(&rules, form, false), Err(Denial::Configured), "{deny} {form}");
        }
    }
    assert_eq!(decided(&rules(&[], &["other.example"]), "203.0.113.9", false), Ok(()));
}

#[test]
fn plain_http_takes_a_rule_for_the_host_and_its_port() {
    let address = "127.0.0.1".parse().unwrap();
    let plain = |host: &str, port| Destination {
        at: HostAndPort { host: host.parse().unwrap(), port },
        is_plain: true,
    };
    let rules = rules(&["http://127.0.0.1:5912", "http://up.example:80", "a.example"], &[]);
    for (host, port) in [("127.0.0.1", 5912), ("up.example", 80)] {
        assert_eq!(decide(&rules, &plain(host, port), address, &[], true), Ok(()), "{host}");
    }
    for (host, port) in [("127.0.0.1", 5913), ("up.example", 8080), ("a.example", 80)] {
        let denied = decide(&rules, &plain(host, port), address, &[], false);
        assert_eq!(denied, Err(Denial::Plain), "{host}");
    }
    // With TLS the same host and port have no exception.
    let secure = Destination { is_plain: false, ..plain("127.0.0.1", 5912) };
    assert_eq!(decide(&rules, &secure, address, &[], false), Err(Denial::Reserved));
}

#[test]
fn the_proxy_is_for_names_that_are_allowed() {
    let table = EgressTable {
        allow: vec![
            "up.example".to_owned(),
            "192.0.2.1".to_owned(),
            "http://p.example:80".to_owned(),
        ],
        deny: Vec::new(),
        proxy: Some("http://proxy.example:3128".to_owned()),
    };
    let rules = table.rules().unwrap();
    let proxy = |host: &str| rules.proxy_for(&to(host)).map(ToString::to_string);
    assert_eq!(proxy("up.example").as_deref(), Some("proxy.example:3128"));
    for direct in ["other.example", "192.0.2.1", "p.example"] {
        assert_eq!(proxy(direct), None, "{direct}");
    }
    let plain = Destination { is_plain: true, ..to("up.example") };
    assert_eq!(rules.proxy_for(&plain), None);
}

#[test]
fn an_entry_that_cannot_be_used_is_named() {
    let fault = |key: &str, entry: &str| {
        let entries = |name: &str| if key == name { vec![entry.to_owned()] } else { Vec::new() };
        let (allow, deny) = (entries("allow"), entries("deny"));
        EgressTable { allow, deny, proxy: entries("proxy").pop() }.rules().err()
    };
    for (key, entry) in [
        ("allow", ""),
        ("allow", "10.0.0.1/8"),
        ("allow", "https://up.example"),
        ("allow", "http://up.example"),
        ("allow", "http://up.example:80/"),
        ("allow", "*.example"),
        ("allow", "up.example:443"),
        ("allow", "127.1"),
        ("deny", "http://up.example:80"),
        ("deny", "::/129"),
        ("proxy", "proxy.example:3128"),
        ("proxy", "https://proxy.example:3128"),
        ("proxy", "http://user:secret@proxy.example:3128"),
        ("proxy", "http://proxy.example"),
    ] {
        let fault = fault(key, entry).unwrap_or_else(|| panic!("{key} {entry} is accepted"));
        let told = fault.to_string();
        assert!(told.starts_with(&format!("{key} = {entry:?}: ")), "{told}");
    }
}
