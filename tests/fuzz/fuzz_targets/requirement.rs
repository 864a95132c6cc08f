//! Whatever is sent as an expression of permissions is parsed, or refused at a character of it. One that is parsed holds
//! for who has everything and for nobody who has nothing, as nothing in it says "not".
#![no_main]

use std::collections::BTreeSet;

use keyward_core::permission::Permission;
use keyward_core::requirement::Requirement;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Requirement::parse("required", text) {
        Ok(requirement) => {
            let everything = Permission::parse("permissions", "*").expect("a permission");
            assert!(requirement.holds(&BTreeSet::from([&everything])));
            assert!(!requirement.holds(&BTreeSet::new()));
        }
        Err(error) => {
            let error = error.to_string();
            if let Some(at) = error.split("character ").nth(1).and_then(|rest| rest.split(':').next()) {
                let at: usize = at.parse().expect("a number");
                assert!((1..=text.chars().count() + 1).contains(&at), "{error}");
            }
        }
    }
});
