//! The identity of a rule: rules that are the same share their counts.
//!
//! Counts are stored under an id that is derived from the rule's window, mode and endpoints, in the encoding that
//! [`canonical`] describes. Neither the encoding nor the derivation may change: all limits would start over.

use std::collections::BTreeSet;

use ring::digest::{SHA256, digest};

use super::{Endpoint, Limit, Mode};
use crate::base62;
use crate::text::InvalidField;

/// Gives each rule its id.
///
/// # Errors
/// Two rules count the same.
pub(super) fn assign_ids(limits: &mut [Limit]) -> Result<(), InvalidField> {
    let canonical: Vec<String> = limits.iter().map(canonical).collect();
    for (index, one) in canonical.iter().enumerate() {
        if let Some(same) = canonical.iter().take(index).position(|other| other == one) {
            let problem = format!("counts the same as rules[{same}]: remove the one that allows more");
            return Err(InvalidField::new(&format!("rules[{index}]"), problem));
        }
    }
    // In an order that does not depend on that of the rules: which of two that collide gives way must not change.
    let mut ordered: Vec<(&String, &mut Limit)> = canonical.iter().zip(limits).collect();
    ordered.sort_by_key(|(canonical, _)| *canonical);
    let mut taken = BTreeSet::new();
    for (canonical, limit) in ordered {
        limit.id = id(canonical, 0);
        for attempt in 1.. {
            if taken.insert(limit.id.clone()) {
                break;
            }
            limit.id = id(canonical, attempt);
        }
    }
    Ok(())
}

/// `1` for the first version of this encoding, the window, the mode and the endpoints, a line each. Endpoints are in their
/// canonical form, which has no line breaks, sorted and each once; there are none where the rule holds for all requests.
fn canonical(limit: &Limit) -> String {
    let mode = match limit.mode() {
        Mode::PerApp => "per_app",
        Mode::PerKey => "per_key",
        Mode::PerKeyAndIp => "per_key_and_ip",
        Mode::PerAppAndIp => "per_app_and_ip",
    };
    let mut lines = vec!["1".to_owned(), limit.window().to_string(), mode.to_owned()];
    if !limit.endpoints.iter().any(Endpoint::is_all) {
        lines.extend(limit.endpoints.iter().map(Endpoint::canonical).collect::<BTreeSet<_>>());
    }
    lines.join("\n")
}

/// The first 64 bits of the SHA-256 of the text, to which the number of the attempt is added after the first, in base 62: the
/// last 3 digits.
fn id(canonical: &str, attempt: u32) -> String {
    let text = if attempt == 0 { canonical.to_owned() } else { format!("{canonical}\n{attempt}") };
    let hash = digest(&SHA256, text.as_bytes());
    let first = hash.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    base62::encode(first, 3)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::rate_limit::{Rule, Rules};

    fn rules(json: &serde_json::Value) -> Result<Rules, InvalidField> {
        Rules::try_from(serde_json::from_value::<Vec<Rule>>(json.clone()).unwrap())
    }

    fn rule(members: serde_json::Value) -> serde_json::Value {
        let mut rule = serde_json::json!({"unit": "minute", "duration": 1, "max_requests": 5});
        rule.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        rule
    }

    fn id_of(members: serde_json::Value) -> String {
        rules(&serde_json::json!([rule(members)])).unwrap().limits()[0].id().to_owned()
    }

    /// Known answers: a change of these is a change of every limit's count.
    #[test]
    fn ids_stay_what_they_are() {
        use serde_json::json;
        for (members, text) in [
            (json!({}), "1\nsliding 60000\nper_key"),
            (json!({"window": "fixed"}), "1\nfixed 60000\nper_key"),
            (json!({"unit": "calendar_day", "mode": "per_app"}), "1\ncalendar_day\nper_app"),
            (json!({"unit": "calendar_month", "mode": "per_ip"}), "1\ncalendar_month\nper_app_and_ip"),
            (
                json!({"mode": "per_key_and_ip", "endpoints": ["/b", "post A/*"]}),
                "1\nsliding 60000\nper_key_and_ip\n* /b\nPOST /a/*",
            ),
        ] {
            let limit = &rules(&json!([rule(members)])).unwrap().limits()[0].clone();
            assert_eq!(canonical(limit), text);
            assert_eq!(limit.id(), id(text, 0));
        }
        let known = [
            ("1\nsliding 60000\nper_key", "YOh"),
            ("1\nfixed 60000\nper_key", "Sub"),
            ("1\ncalendar_month\nper_app_and_ip", "XJ5"),
            ("1\nsliding 60000\nper_key_and_ip\n* /b\nPOST /a/*", "kDv"),
        ];
        assert_eq!(known.map(|(text, _)| id(text, 0)), known.map(|(_, id)| id));
        assert_eq!(id("1\nsliding 60000\nper_key", 1), "3OT");
    }

    #[test]
    fn a_limit_its_place_and_the_spelling_of_its_endpoints_are_not_part_of_it() {
        use serde_json::json;
        let plain = id_of(json!({"endpoints": ["/v1/users", "POST /v1/*"]}));
        for same in [
            json!({"endpoints": ["POST /v1/*", "/v1/users"]}),
            json!({"endpoints": ["post  v1//*", "/V1/users/", "/v1/%75sers"]}),
            json!({"endpoints": ["/v1/users", "POST /v1/*"], "max_requests": 2_147_483_647, "priority": 7}),
            json!({"endpoints": ["/v1/users", "POST /v1/*"], "unit": "second", "duration": 60}),
        ] {
            assert_eq!(id_of(same.clone()), plain, "{same}");
        }
        for all in [json!({"endpoints": []}), json!({"endpoints": ["*"]}), json!({"endpoints": ["/a", "/*"]})]
        {
            assert_eq!(id_of(all.clone()), id_of(json!({})), "{all}");
        }
        for other in [
            json!({"endpoints": ["/v1/users"]}),
            json!({"endpoints": ["/v1/users", "PUT /v1/*"]}),
            json!({"endpoints": ["/v1/users", "POST /v1/*"], "window": "fixed"}),
            json!({"endpoints": ["/v1/users", "POST /v1/*"], "mode": "per_app"}),
            json!({"endpoints": ["GET *"]}),
            json!({}),
        ] {
            assert_ne!(id_of(other.clone()), plain, "{other}");
        }
    }

    #[test]
    fn rules_of_a_scheme_never_collide_in_whatever_order_they_are() {
        use serde_json::json;
        let mut seen: HashMap<String, i32> = HashMap::new();
        let (one, other) = (1..60_000)
            .find_map(|ms| {
                let id = id(&format!("1\nsliding {ms}\nper_key"), 0);
                seen.insert(id, ms).map(|before| (before, ms))
            })
            .expect("of a quarter of a million ids, some of so many are the same");
        let of = |ms: i32| rule(json!({"unit": "millisecond", "duration": ms}));
        let ids = |scheme: serde_json::Value| -> HashMap<i64, String> {
            let rules = rules(&scheme).unwrap();
            rules.limits().iter().map(|limit| (limit.window().ms(), limit.id().to_owned())).collect()
        };
        let both = ids(json!([of(one), of(other)]));
        assert_ne!(both[&i64::from(one)], both[&i64::from(other)]);
        assert_eq!(ids(json!([of(other), of(one)])), both);
    }
}
