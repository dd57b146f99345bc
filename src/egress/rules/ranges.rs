//! Ranges of addresses that no upstream has.

use super::cidr::Cidr;

/// Denied for everybody. The first six are for this host, its neighbours and their metadata.
pub(super) const RESERVED: [Cidr; 13] = [
    Cidr::v4([0, 0, 0, 0], 8),
    Cidr::v4([127, 0, 0, 0], 8),
    Cidr::v4([169, 254, 0, 0], 16),
    Cidr::v4([192, 0, 0, 0], 24),
    // The metadata of Alibaba Cloud, and the wire server of Azure.
    Cidr::v4([100, 100, 100, 200], 32),
    Cidr::v4([168, 63, 129, 16], 32),
    // Multicast, then reserved and broadcast.
    Cidr::v4([224, 0, 0, 0], 4),
    Cidr::v4([240, 0, 0, 0], 4),
    // Unspecified, loopback and whatever else of ::/96 there is: an IPv4 address in it is a reading of its own.
    Cidr::v6([0, 0, 0, 0], 127),
    Cidr::v6([0xfe80, 0, 0, 0], 10),
    Cidr::v6([0xff00, 0, 0, 0], 8),
    // The metadata of AWS over IPv6.
    Cidr::v6([0xfd00, 0x0ec2, 0, 0], 32),
    // Google's metadata over IPv6.
    Cidr::v6([0xfd20, 0x00ce, 0, 0], 32),
];

/// Denied where a step sees the reply: networks of an organisation, and ranges that are not routed on the Internet (RFC 6890).
pub(super) const PRIVATE: [Cidr; 14] = [
    Cidr::v4([10, 0, 0, 0], 8),
    Cidr::v4([100, 64, 0, 0], 10),
    Cidr::v4([172, 16, 0, 0], 12),
    Cidr::v4([192, 0, 2, 0], 24),
    Cidr::v4([192, 168, 0, 0], 16),
    Cidr::v4([198, 18, 0, 0], 15),
    Cidr::v4([198, 51, 100, 0], 24),
    Cidr::v4([203, 0, 113, 0], 24),
    Cidr::v6([0xfc00, 0, 0, 0], 7),
    Cidr::v6([0xfec0, 0, 0, 0], 10),
    Cidr::v6([0x0100, 0, 0, 0], 64),
    Cidr::v6([0x2001, 0x0db8, 0, 0], 32),
    Cidr::v6([0x3fff, 0, 0, 0], 20),
    Cidr::v6([0x5f00, 0, 0, 0], 16),
];
