//! The addresses of clients, in one form each.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::text::InvalidField;

/// The address of a client: an IPv4 address, or an IPv6 one that maps none. Where a client's address may be unknown, this is
/// an `Option`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ClientAddress(IpAddr);

/// A text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be an IP address, such as 203.0.113.7 or 2001:db8::1")]
pub struct InvalidAddress;

impl ClientAddress {
    /// Parses the address in the request's field `field`: see [`Self::from_str`].
    ///
    /// # Errors
    /// It is none.
    pub fn parse(field: &str, text: &str) -> Result<Self, InvalidField> {
        text.parse().map_err(|wrong: InvalidAddress| InvalidField::new(field, wrong.to_string()))
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// The address of its network: of an IPv4 address the first 24 bits, of an IPv6 one the first 48.
    #[must_use]
    pub fn truncated(self) -> Self {
        Self(match self.0 {
            IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & (!0 << 8)).into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (!0 << 80)).into(),
        })
    }
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }
}

impl FromStr for ClientAddress {
    type Err = InvalidAddress;

    /// An address as proxies and frameworks write it: with white space around it, with a port (`203.0.113.7:1111`), in
    /// brackets (`[2001:db8::1]`, RFC 3986, 3.2.2), with both (`[2001:db8::1]:443`), and an IPv6 address with a zone
    /// (`fe80::1%eth0`, RFC 4007, 11). IPv4 addresses are four decimal numbers without leading zeros, which some take for
    /// octal ones (RFC 6943, 3.1.1).
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let text = text.trim();
        let address = match text.strip_prefix('[').and_then(|text| text.split_once(']')) {
            Some((address, "")) => ipv6(address),
            Some((address, after)) => {
                after.strip_prefix(':').filter(|port| is_port(port)).and_then(|_| ipv6(address))
            }
            None => match text.split_once(':') {
                Some((address, port)) if is_port(port) => address.parse().ok().map(IpAddr::V4),
                Some(_) => ipv6(text),
                None => text.parse().ok().map(IpAddr::V4),
            },
        };
        address.map(Self::from).ok_or(InvalidAddress)
    }
}

/// An IPv6 address, which may have a zone.
fn ipv6(text: &str) -> Option<IpAddr> {
    let address = match text.split_once('%') {
        Some((address, zone)) if is_zone(zone) => address,
        Some(_) => return None,
        None => text,
    };
    address.parse().ok().map(|address: Ipv6Addr| address.into())
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_zone(text: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
    !text.is_empty() && text.bytes().all(of_name)
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<ClientAddress> for String {
    fn from(address: ClientAddress) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for ClientAddress {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn form(text: &str) -> Option<String> {
        text.parse().ok().map(|address: ClientAddress| address.to_string())
    }

    #[test]
    fn ports_brackets_and_zones_are_taken_off() {
        for (text, address) in [
            ("203.0.113.7", "203.0.113.7"),
            (" 203.0.113.7\t", "203.0.113.7"),
            ("203.0.113.7:1111", "203.0.113.7"),
            ("203.0.113.7:0", "203.0.113.7"),
            ("0.0.0.0", "0.0.0.0"),
            ("2001:db8::1", "2001:db8::1"),
            ("2001:0DB8:0:0::0001", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25en0.1]:65535", "fe80::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("[::ffff:cb00:7107]:80", "203.0.113.7"),
            ("2001:db8::1:443", "2001:db8::1:443"),
            ("::", "::"),
        ] {
            assert_eq!(form(text).as_deref(), Some(address), "{text}");
        }
    }

    #[test]
    fn invalid_addresses() {
        for text in [
            "",
            " ",
            "unknown",
            "203.0.113.7, 198.51.100.1",
            "203.0.113.7,",
            "203.0.113.7 198.51.100.1",
            "203.0.113",
            "203.0.113.7.1",
            "203.0.113.07",
            "0313.0.113.7",
            "0xcb.0.113.7",
            "3405803783",
            "203.0.113.256",
            "203.0.113.7:",
            "203.0.113.7:x",
            "203.0.113.7:+1",
            "203.0.113.7:65536",
            "203.0.113.7:1:2",
            "203.0.113.7%eth0",
            "[203.0.113.7]",
            "[203.0.113.7]:80",
            "[2001:db8::1",
            "2001:db8::1]",
            "[2001:db8::1]443",
            "[2001:db8::1]:",
            "[2001:db8::1]:65536",
            "[2001:db8::1]:+1",
            "[[2001:db8::1]]",
            "fe80::1%",
            "fe80::1%eth 0",
            "fe80::1%eth0%1",
            "[fe80::1]%eth0",
            "2001:db8:::1",
            "\"2001:db8::1\"",
            "203.0.113.7\u{0}",
            "२०३.0.113.7",
        ] {
            assert_eq!(form(text), None, "{text:?}");
        }
        let wrong = ClientAddress::parse("client_ip", "here").unwrap_err().to_string();
        assert_eq!(wrong, "client_ip must be an IP address, such as 203.0.113.7 or 2001:db8::1");
    }

    #[test]
    fn it_is_kept_as_a_text() {
        let address: ClientAddress = serde_json::from_str("\"[2001:db8::1]:443\"").unwrap();
        assert_eq!(serde_json::to_string(&address).unwrap(), "\"2001:db8::1\"");
        assert_eq!(address.ip(), "2001:db8::1".parse::<IpAddr>().unwrap());
        assert!(serde_json::from_str::<ClientAddress>("\"here\"").is_err());
    }

    proptest! {
        #[test]
        fn every_address_is_itself_however_it_is_written(ip: IpAddr, port: u16, zone in "[a-z0-9]{1,8}") {
            let address = ClientAddress::from(ip);
            let written = match ip {
                IpAddr::V4(ip) => vec![format!("{ip}"), format!(" {ip}:{port}"), format!("::ffff:{ip}")],
                IpAddr::V6(ip) => vec![format!("{ip}"), format!("{ip}%{zone}"), format!("[{ip}]"), format!("[{ip}%{zone}]:{port} ")],
            };
            for text in written {
                prop_assert_eq!(text.parse(), Ok(address), "{}", text);
            }
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn valid_addresses_have_one_form(text in "[0-9a-f.:%\\[\\] x]{0,24}") {
            if let Ok(address) = text.parse::<ClientAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
                prop_assert!(text.contains(':') || text.trim().parse::<Ipv4Addr>().is_ok());
            }
        }
    }
}
