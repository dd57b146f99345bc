//! A range of addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses of one family: those that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    first: IpAddr,
    bits: u32,
}

impl Cidr {
    pub(super) const fn v4(first: [u8; 4], bits: u32) -> Self {
        let [a, b, c, d] = first;
        Self { first: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), bits }
    }

    /// `first` are the first four groups; the others are zero.
    pub(super) const fn v6(first: [u16; 4], bits: u32) -> Self {
        let [a, b, c, d] = first;
        Self { first: IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), bits }
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                shifted(u128::from(first.to_bits() ^ address.to_bits()), 32, self.bits) == 0
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                shifted(first.to_bits() ^ address.to_bits(), 128, self.bits) == 0
            }
            _ => false,
        }
    }
}

/// The first `bits` of a number of `width` bits.
fn shifted(number: u128, width: u32, bits: u32) -> u128 {
    number.checked_shr(width.saturating_sub(bits)).unwrap_or(0)
}

impl From<IpAddr> for Cidr {
    fn from(address: IpAddr) -> Self {
        let first = address.to_canonical();
        Self { first, bits: if first.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "a CIDR is an address, a slash and a number of bits: 10.0.0.0/8".to_owned();
        let (first, bits) = text.split_once('/').ok_or_else(form)?;
        let first: IpAddr = first.parse().map_err(|_| form())?;
        let width = if first.is_ipv4() { 32 } else { 128 };
        let is_plain = !bits.is_empty() && bits.bytes().all(|c| c.is_ascii_digit());
        let bits = bits.parse().ok().filter(|bits| is_plain && *bits <= width).ok_or_else(form)?;
        let number = match first {
            IpAddr::V4(first) => u128::from(first.to_bits()) << 96,
            IpAddr::V6(first) => first.to_bits(),
        };
        if number.checked_shl(bits).unwrap_or(0) != 0 {
            return Err(format!("bits after the first {bits} are set; clear them"));
        }
        if first.to_canonical() != first {
            return Err("write a range of IPv4 addresses in the form of IPv4".to_owned());
        }
        Ok(Self { first, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_contains_what_begins_like_it() {
        let range = |text: &str| text.parse::<Cidr>().unwrap();
        let contains = |text: &str, address: &str| range(text).contains(address.parse().unwrap());
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.0.0.0/9", "10.127.255.255", "10.128.0.0"),
            ("192.0.2.1/32", "192.0.2.1", "192.0.2.0"),
            ("fe80::/10", "febf:ffff::", "fec0::"),
            ("::1/128", "::1", "::"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"),
        ] {
            assert!(contains(text, inside), "{text} {inside}");
            assert!(!contains(text, outside), "{text} {outside}");
        }
        assert!(contains("0.0.0.0/0", "255.1.2.3") && !contains("0.0.0.0/0", "::"));
        assert!(contains("::/0", "ffff::1") && !contains("::/0", "0.0.0.0"));
    }

    #[test]
    fn a_range_that_is_not_well_formed_is_refused() {
        for bad in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/+8",
            "10.0.0.1/8",
            "10/8",
            "010.0.0.0/8",
            "::/129",
            "::1/64",
            "::ffff:10.0.0.0/104",
            "fe80::%1/64",
            "host/8",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
