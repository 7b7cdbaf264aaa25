//! A network in CIDR form, as `--local` names it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// An address range that shares its first bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix_len: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkError {
    /// The part before the slash is no address.
    Address,
    /// The part after it is no number of bits that this address family has.
    PrefixLength,
    /// There are bits set behind the prefix: probably not what was meant.
    HostBits,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "not an IPv4 or IPv6 address",
            Self::PrefixLength => "the prefix length must be 0 to 32 (IPv4) or 0 to 128 (IPv6)",
            Self::HostBits => "bits are set behind the prefix; name the network's first address",
        })
    }
}

impl std::error::Error for NetworkError {}

/// Bits of the address as the upper end of 128, so that both families compare alike.
const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => (v4.to_bits() as u128) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Network {
    /// The network of an address: its first `prefix_len` bits, or all of it where that is longer.
    #[must_use]
    pub fn around(address: IpAddr, prefix_len: u8) -> Self {
        let prefix_len = prefix_len.min(if address.is_ipv4() { 32 } else { 128 });
        let kept = u128::MAX
            .checked_shl(128 - u32::from(prefix_len))
            .unwrap_or(0);
        let first = bits(address) & kept;
        Self {
            address: match address {
                // The address stands in the upper 32 bits; the rest is 0.
                IpAddr::V4(_) => IpAddr::V4(u32::try_from(first >> 96).unwrap_or_default().into()),
                IpAddr::V6(_) => IpAddr::V6(first.into()),
            },
            prefix_len,
        }
    }

    /// Whether `address` lies in this network; never across families.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && self.behind_prefix(bits(address) ^ bits(self.address)) == 0
    }

    /// The bits of the prefix only, shifted to the low end.
    fn behind_prefix(&self, bits: u128) -> u128 {
        bits.checked_shr(128 - u32::from(self.prefix_len))
            .unwrap_or(0)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = match prefix {
            None => longest,
            // `parse` would take a plus sign.
            Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|len| *len <= longest)
                .ok_or(NetworkError::PrefixLength)?,
            Some(_) => return Err(NetworkError::PrefixLength),
        };
        if bits(address)
            .checked_shl(u32::from(prefix_len))
            .unwrap_or(0)
            != 0
        {
            return Err(NetworkError::HostBits);
        }
        Ok(Self {
            address,
            prefix_len,
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, NetworkError};

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let four = network("10.1.0.0/16");
        assert!(four.contains("10.1.255.255".parse().unwrap()));
        assert!(!four.contains("10.2.0.0".parse().unwrap()));
        let six = network("2001:db8::/33");
        assert!(six.contains("2001:db8:7fff::1".parse().unwrap()));
        assert!(!six.contains("2001:db8:8000::1".parse().unwrap()));
    }

    #[test]
    fn an_address_alone_is_itself() {
        let one = network("192.0.2.1");
        assert_eq!(one.to_string(), "192.0.2.1/32");
        assert!(one.contains("192.0.2.1".parse().unwrap()));
        assert!(!one.contains("192.0.2.0".parse().unwrap()));
        assert!(network("::1").contains("::1".parse().unwrap()));
    }

    #[test]
    fn the_network_around_an_address_holds_it_and_has_no_bits_behind_its_prefix() {
        for (address, prefix_len, expected) in [
            ("192.0.2.77", 24, "192.0.2.0/24"),
            ("192.0.2.77", 0, "0.0.0.0/0"),
            ("192.0.2.77", 64, "192.0.2.77/32"),
            ("2001:db8:1:2:3::4", 64, "2001:db8:1:2::/64"),
            ("2001:db8::1", 0, "::/0"),
            ("2001:db8::1", 128, "2001:db8::1/128"),
        ] {
            let around = Network::around(address.parse().unwrap(), prefix_len);
            assert_eq!(around, network(expected), "{address}/{prefix_len}");
        }
    }

    #[test]
    fn the_whole_of_one_family_does_not_hold_the_other() {
        assert!(network("0.0.0.0/0").contains("255.1.2.3".parse().unwrap()));
        assert!(!network("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(network("::/0").contains("ffff::".parse().unwrap()));
        assert!(!network("::/0").contains("1.2.3.4".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_says_why() {
        for (text, error) in [
            ("", NetworkError::Address),
            ("10.0.0", NetworkError::Address),
            ("host.example", NetworkError::Address),
            ("10.0.0.0/33", NetworkError::PrefixLength),
            ("10.0.0.0/+8", NetworkError::PrefixLength),
            ("10.0.0.0/", NetworkError::PrefixLength),
            ("::/129", NetworkError::PrefixLength),
            ("10.0.0.1/8", NetworkError::HostBits),
            ("10.0.0.1/0", NetworkError::HostBits),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }
}
