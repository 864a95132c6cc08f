//! Whatever is sent as an address is one, which it stays in its one form, or is refused.
#![no_main]

use std::net::IpAddr;

use keyward_core::ClientAddress;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match text.parse::<ClientAddress>() {
        Ok(address) => {
            let form = address.to_string();
            assert_eq!(form.parse(), Ok(address), "{text}");
            assert_eq!(form.parse(), Ok(address.ip()), "{text}");
            assert_eq!(address.ip(), address.ip().to_canonical(), "{text} is an IPv4 address as IPv6 maps it");
        }
        Err(_) => assert!(text.parse::<IpAddr>().is_err(), "{text}"),
    }
});
