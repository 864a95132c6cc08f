//! Whose word is taken for where a request comes from.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// The networks of proxies that stand before the API Gateway and are believed about who asked them.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// The client of a request that came from `source` with these entries of `X-Forwarded-For`: the first address that is
    /// not a trusted proxy's, from `source` on and then from the right, where each proxy adds whoever asked it. What is no
    /// address ends the search: the last one before it is the client.
    pub(crate) fn client<'a>(
        &self,
        source: IpAddr,
        forwarded_for: impl DoubleEndedIterator<Item = &'a str>,
    ) -> IpAddr {
        let mut client = source.to_canonical();
        for hop in forwarded_for.rev() {
            if !self.trust(client) {
                break;
            }
            match hop.trim().parse::<IpAddr>() {
                Ok(address) => client = address.to_canonical(),
                Err(_) => break,
            }
        }
        client
    }

    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
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
    use proptest::prelude::*;

    use super::*;

    fn client(proxies: &str, source: &str, forwarded_for: &str) -> String {
        let proxies: TrustedProxies = proxies.parse().unwrap();
        proxies.client(source.parse().unwrap(), forwarded_for.split(',')).to_string()
    }

    const PROXIES: &str = "192.0.2.0/24,2001:db8:1::/48";

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
        assert_eq!(client("", "192.0.2.1", "203.0.113.9"), "192.0.2.1");
        assert_eq!(client(PROXIES, "198.51.100.1", "203.0.113.9"), "198.51.100.1");
        assert_eq!(client(PROXIES, "192.0.2.1", "203.0.113.9"), "203.0.113.9");
        assert_eq!(client(PROXIES, "192.0.2.1", "203.0.113.8, 203.0.113.9"), "203.0.113.9");
        assert_eq!(client(PROXIES, "192.0.2.1", "203.0.113.9, 192.0.2.2,192.0.2.1"), "203.0.113.9");
        assert_eq!(client(PROXIES, "2001:db8:1::1", "2001:db8:2::9"), "2001:db8:2::9");
        assert_eq!(client(PROXIES, "::ffff:192.0.2.1", "::ffff:203.0.113.9"), "203.0.113.9");
        assert_eq!(client(PROXIES, "192.0.2.1", "192.0.2.7, 192.0.2.2"), "192.0.2.7", "all are proxies");
    }

    #[test]
    fn what_is_no_address_ends_the_search() {
        for garbage in ["", "unknown", "203.0.113.9:80", "203.0.113.9 x", "<script>"] {
            assert_eq!(client(PROXIES, "192.0.2.1", garbage), "192.0.2.1", "{garbage}");
            assert_eq!(
                client(PROXIES, "192.0.2.1", &format!("203.0.113.9,{garbage},192.0.2.2")),
                "192.0.2.2"
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
            let none = TrustedProxies::default();
            prop_assert_eq!(none.client(source, sent.iter().map(String::as_str)), source.to_canonical());
        }

        #[test]
        fn nobody_chooses_an_address_beyond_the_first_that_is_not_trusted(
            sent in prop::collection::vec(hop(), 0..6),
            real in (1..=254_u8).prop_map(|last| IpAddr::from([203, 0, 113, last])),
            proxies in prop::collection::vec((0..=255_u8).prop_map(|last| format!("192.0.2.{last}")), 0..4),
        ) {
            let trusted: TrustedProxies = PROXIES.parse().unwrap();
            let mut hops = sent;
            hops.push(real.to_string());
            hops.extend(proxies);
            let found = trusted.client(IpAddr::from([192, 0, 2, 1]), hops.iter().map(String::as_str));
            prop_assert_eq!(found, real);
        }
    }
}
