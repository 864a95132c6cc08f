//! Proxies that are trusted to say where a request comes from.

use std::str::FromStr;

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;
use keyward_core::ClientAddress;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks of proxies that stand before an API or a function and are believed about who asked them.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// The client of a request that came from `source` with these headers: the first address that is not a trusted
    /// proxy's, from `source` on and then in `X-Forwarded-For` from the right, where each proxy adds whoever asked it. What is
    /// no address ends the search: the last one before it is the client.
    pub fn client(&self, source: ClientAddress, headers: &HeaderMap) -> ClientAddress {
        // What is no text is no address.
        let values = headers.get_all(X_FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default());
        let hops: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
        let mut client = source;
        for hop in hops.into_iter().rev() {
            match hop.parse() {
                Ok(address) if self.trusts(client) => client = address,
                _ => break,
            }
        }
        client
    }

    fn trusts(&self, address: ClientAddress) -> bool {
        self.0.iter().any(|network| network.contains(&address.ip()))
    }
}

impl FromStr for TrustedProxies {
    type Err = ipnet::AddrParseError;

    /// Networks in CIDR notation (RFC 4632, 3.1), separated by commas.
    fn from_str(list: &str) -> Result<Self, ipnet::AddrParseError> {
        let networks = list.split(',').map(str::trim).filter(|network| !network.is_empty());
        networks.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    /// The client of a request from `source` with a header `X-Forwarded-For` for each of these values.
    fn client_of(proxies: &str, source: &str, values: &[&str]) -> String {
        let proxies: TrustedProxies = proxies.parse().unwrap();
        let headers = values.iter().map(|value| (X_FORWARDED_FOR, HeaderValue::from_str(value).unwrap()));
        proxies.client(source.parse().unwrap(), &headers.collect()).to_string()
    }

    fn client(proxies: &str, source: &str, forwarded_for: &str) -> String {
        client_of(proxies, source, &[forwarded_for])
    }

    const PROXIES: &str = "192.0.2.0/24,2001:db8:1::/48";

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
        assert_eq!(client("", "192.0.2.1", "203.0.113.9"), "192.0.2.1");
        assert_eq!(client(PROXIES, "198.51.100.1", "203.0.113.9"), "198.51.100.1");
        assert_eq!(client(PROXIES, "192.0.2.1", "203.0.113.9"), "203.0.113.9");
        assert_eq!(client(PROXIES, "192.0.2.1", "203.0.113.9:1111"), "203.0.113.9");
        assert_eq!(client(PROXIES, "192.0.2.1", "203.0.113.8, 203.0.113.9"), "203.0.113.9");
        assert_eq!(client(PROXIES, "192.0.2.1", "203.0.113.9, 192.0.2.2,192.0.2.1"), "203.0.113.9");
        assert_eq!(
            client(PROXIES, "2001:db8:1::1", "[2001:db8:2::9]:443, [2001:db8:1::2]:443"),
            "2001:db8:2::9"
        );
        assert_eq!(client(PROXIES, "::ffff:192.0.2.1", "::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(client(PROXIES, "192.0.2.1", "192.0.2.7, 192.0.2.2"), "192.0.2.7", "all are proxies");
        assert_eq!(client_of(PROXIES, "192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(
            client_of(PROXIES, "192.0.2.1", &["203.0.113.8", "203.0.113.9, 192.0.2.2"]),
            "203.0.113.9"
        );
    }

    #[test]
    fn an_invalid_address_ends_the_search() {
        for garbage in ["", "unknown", "203.0.113.09", "203.0.113.9 x", "<script>", "\u{e9}"] {
            assert_eq!(client(PROXIES, "192.0.2.1", garbage), "192.0.2.1", "{garbage}");
            assert_eq!(
                client(PROXIES, "192.0.2.1", &format!("203.0.113.9,{garbage},192.0.2.2")),
                if garbage.is_ascii() { "192.0.2.2" } else { "192.0.2.1" }
            );
        }
    }

    fn hop() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<IpAddr>().prop_map(|address| address.to_string()),
            any::<u8>().prop_map(|last| format!("192.0.2.{last}")),
            "[ -~]{0,20}",
        ]
    }

    proptest! {
        #[test]
        fn without_a_trusted_proxy_nobody_chooses_an_address(source: IpAddr, sent in prop::collection::vec(hop(), 0..6)) {
            let source = ClientAddress::from(source).to_string();
            prop_assert_eq!(client("", &source, &sent.join(",")), source);
        }

        #[test]
        fn clients_cannot_choose_an_address_beyond_the_first_untrusted_one(
            sent in prop::collection::vec(hop(), 0..6),
            real in (1..=254_u8).prop_map(|last| format!("203.0.113.{last}")),
            proxies in prop::collection::vec((0..=255_u8).prop_map(|last| format!("192.0.2.{last}")), 0..4),
        ) {
            let hops = sent.into_iter().chain([real.clone()]).chain(proxies).collect::<Vec<_>>().join(",");
            prop_assert_eq!(client(PROXIES, "192.0.2.1", &hops), real);
        }
    }
}
