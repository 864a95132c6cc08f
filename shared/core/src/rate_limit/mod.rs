//! Rate limits: rules in the form of the wire, their validation, the requests that they apply to and how their
//! counts are read.

mod counter;
mod endpoint;
mod identity;
mod scheme;
mod window;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use counter::{Counts, RuleState};
pub use endpoint::Endpoint;
pub use scheme::{NewScheme, Scheme, SchemeChanges};
pub use window::{MAX_WINDOW, Window, seconds_until};

use crate::target::Target;
use crate::text::InvalidField;

/// The requests per second that one counter takes at most: an item of DynamoDB takes about 1,000 writes a second, and
/// requests do not spread evenly.
const COUNTER_RATE: i64 = 500;
/// Over how many counters a rule is spread at most, whatever it lets through: together they take about 16,000 requests a
/// second.
pub const MAX_SHARDS: i64 = 16;
/// The maximum number of rules in a scheme.
const MAX_RULES: usize = 20;
/// The maximum number of endpoints of a rule.
const MAX_ENDPOINTS: usize = 20;

/// The unit of a rule's window. Calendar units follow UTC days and months.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// 1 ms.
    Millisecond,
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// 86,400 s.
    Day,
    /// A UTC day, from midnight.
    CalendarDay,
    /// 30 days.
    Month,
    /// A UTC month, from its first midnight.
    CalendarMonth,
}

impl Unit {
    /// The longest window, in units: none exceeds 30 days, calendar months aside.
    fn max_duration(self) -> i32 {
        match self {
            Self::Millisecond => 60_000,
            Self::Second => 1_800,
            Self::Minute => 1_440,
            Self::Hour => 720,
            Self::Day => 30,
            Self::CalendarDay | Self::Month | Self::CalendarMonth => 1,
        }
    }
}

/// How the windows of a rule follow each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// A window ends with any instant: none of its length lets more through.
    #[default]
    Sliding,
    /// A window begins where the one before ends, at a multiple of its length since the Unix epoch: a client that keeps to
    /// the limit is not denied, and twice as many requests may pass around an edge.
    Fixed,
}

impl WindowKind {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The requests that a rule counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = RateLimitMode)]
pub enum Mode {
    /// All keys of the app.
    PerApp,
    /// One key.
    PerKey,
    /// One key from one address.
    PerKeyAndIp,
    /// All keys of the app from one address. `per_ip` means this too, and is never written.
    #[serde(alias = "per_ip")]
    PerAppAndIp,
}

/// One rule of a scheme, in the form of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = RateLimitRule, example = json!({"unit": "minute", "duration": 1, "max_requests": 100}))]
pub struct Rule {
    /// The unit of the window.
    pub unit: Unit,
    /// The window in units: 30 days at most, and one of `calendar_day`, `month` and `calendar_month`.
    #[schema(minimum = 1, maximum = 60_000)]
    pub duration: i32,
    /// The number of requests that a window admits.
    #[schema(minimum = 1)]
    pub max_requests: i32,
    /// How its windows follow each other. It makes no difference to calendar units, whose windows are fixed.
    #[serde(default, skip_serializing_if = "WindowKind::is_default")]
    pub window: WindowKind,
    /// The requests that count together; one key's where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Which requests it holds for: paths, in which `*` stands for any text, each after a method if it is for that alone
    /// (`POST /v1/*`). All where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 20)]
    pub endpoints: Option<Vec<String>>,
    /// Rules are evaluated in ascending order of this.
    #[serde(default)]
    pub priority: i32,
}

/// A valid rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    rule: Rule,
    endpoints: Vec<Endpoint>,
    /// Given by [`Rules`].
    id: String,
}

impl Limit {
    /// Parses a rule.
    ///
    /// # Errors
    /// The member that is wrong, and why.
    fn parse(rule: Rule) -> Result<Self, (String, String)> {
        let max_duration = rule.unit.max_duration();
        if !(1..=max_duration).contains(&rule.duration) {
            return Err(("duration".into(), format!("must be 1 to {max_duration} for this unit")));
        }
        if rule.max_requests < 1 {
            return Err(("max_requests".into(), "must be positive".into()));
        }
        let written = rule.endpoints.as_deref().unwrap_or_default();
        if written.len() > MAX_ENDPOINTS {
            return Err(("endpoints".into(), format!("must have at most {MAX_ENDPOINTS} entries")));
        }
        let mut endpoints = Vec::with_capacity(written.len());
        for (index, text) in written.iter().enumerate() {
            let wrong = |error: InvalidField| (format!("endpoints[{index}]"), error.problem);
            endpoints.push(Endpoint::parse("", text).map_err(wrong)?);
        }
        Ok(Self { rule, endpoints, id: String::new() })
    }

    /// The rule in the form of the wire.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The name that its counts are stored under: 3 base-62 digits, other ones than those of the scheme's other rules.
    /// Rules that differ in no more than `max_requests`, `priority` and the spelling and order of their endpoints share
    /// their counts, so that a limit can be raised and lowered without starting over.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The requests that it counts together.
    pub fn mode(&self) -> Mode {
        self.rule.mode.unwrap_or(Mode::PerKey)
    }

    /// The window in which it counts.
    pub fn window(&self) -> Window {
        Window::new(self.rule.window, self.rule.unit, self.rule.duration)
    }

    /// The number of requests that a window admits.
    pub fn max(&self) -> i64 {
        i64::from(self.rule.max_requests)
    }

    /// Over how many counters its requests are spread, so that none has to take more than 500 a second for long; at most
    /// [`MAX_SHARDS`].
    pub fn shards(&self) -> i64 {
        let a_second = self.max().saturating_mul(1_000) / self.window().ms();
        (a_second / COUNTER_RATE + 1).min(self.max()).min(MAX_SHARDS)
    }

    /// The number of requests that the counter of this shard admits: those of all shards add up to [`Self::max`].
    pub fn share(&self, shard: i64) -> i64 {
        let shards = self.shards();
        self.max() / shards + i64::from(shard < self.max() % shards)
    }

    /// The name in responses and in the audit log: `100/60s`, `5/500ms`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.max(), window_name(self.window().ms()))
    }

    fn applies_to(&self, target: &Target) -> bool {
        self.endpoints.is_empty() || self.endpoints.iter().any(|endpoint| endpoint.matches(target))
    }
}

/// A window in responses: `60s`, or `500ms` where that is no whole number of seconds.
pub fn window_name(ms: i64) -> String {
    if ms % 1_000 == 0 { format!("{}s", ms / 1_000) } else { format!("{ms}ms") }
}

/// The state of one rule when a request was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = RateLimitStatus)]
pub struct Status {
    /// The rule's name, such as `100/60s`.
    pub rule: String,
    /// The number of further requests that it admits.
    pub remaining: i64,
    /// The number of requests that a window admits.
    pub limit: i64,
    /// The window's length in milliseconds.
    #[serde(skip)]
    pub window_ms: i64,
    /// The number of seconds until it admits more.
    #[serde(skip)]
    pub resets_in: u32,
}

/// Why a request was not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// The name of the first rule, in the order of priority, that was exhausted.
    pub rule: String,
    /// The index of that rule among those that hold for the request.
    pub index: usize,
    /// The number of seconds until it admits a request again.
    pub retry_after: u32,
}

/// The outcome of the rules that hold for a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// The state of each rule, in the order of priority.
    pub limits: Vec<Status>,
    /// Why the request was not admitted, if it was not: then no rule has counted it.
    pub blocked: Option<Blocked>,
}

/// The rules of a scheme: 1 to 20, each valid, and no two that count the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Rule>", try_from = "Vec<Rule>")]
pub struct Rules(Vec<Limit>);

impl Rules {
    /// All of them.
    pub fn limits(&self) -> &[Limit] {
        &self.0
    }

    /// Those that hold for a request, in ascending order of their priority.
    pub fn applicable(&self, target: &Target) -> Vec<&Limit> {
        let mut applicable: Vec<&Limit> = self.0.iter().filter(|limit| limit.applies_to(target)).collect();
        applicable.sort_by_key(|limit| limit.rule.priority);
        applicable
    }
}

impl From<Rules> for Vec<Rule> {
    fn from(rules: Rules) -> Self {
        rules.0.into_iter().map(|limit| limit.rule).collect()
    }
}

impl TryFrom<Vec<Rule>> for Rules {
    type Error = InvalidField;

    fn try_from(rules: Vec<Rule>) -> Result<Self, InvalidField> {
        if rules.is_empty() {
            return Err(InvalidField::new("rules", "must include at least one rule"));
        }
        if rules.len() > MAX_RULES {
            return Err(InvalidField::new("rules", format!("must have at most {MAX_RULES} entries")));
        }
        let mut limits: Vec<Limit> = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            let limit = Limit::parse(rule).map_err(|(member, problem)| {
                InvalidField::new(&format!("rules[{index}].{member}"), problem)
            })?;
            limits.push(limit);
        }
        identity::assign_ids(&mut limits)?;
        Ok(Self(limits))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> Result<Rules, String> {
        let rule: Rule = serde_json::from_str(json).map_err(|e| e.to_string())?;
        Rules::try_from(vec![rule]).map_err(|e| e.to_string())
    }

    #[test]
    fn each_unit_has_its_longest_window() {
        for (unit, max_duration) in [
            ("millisecond", 60_000),
            ("second", 1_800),
            ("minute", 1_440),
            ("hour", 720),
            ("day", 30),
            ("calendar_day", 1),
            ("month", 1),
            ("calendar_month", 1),
        ] {
            let of = |n: i32| rule(&format!(r#"{{"unit":"{unit}","duration":{n},"max_requests":1}}"#));
            assert!(of(max_duration).is_ok(), "{unit}");
            assert!(of(max_duration + 1).is_err(), "{unit}");
            assert!(of(0).is_err(), "{unit}");
        }
    }

    #[test]
    fn per_ip_is_read_and_never_written() {
        let rules = rule(r#"{"unit":"minute","duration":1,"max_requests":5,"mode":"per_ip"}"#).unwrap();
        assert_eq!(
            serde_json::to_string(&rules).unwrap(),
            r#"[{"unit":"minute","duration":1,"max_requests":5,"mode":"per_app_and_ip","priority":0}]"#
        );
    }

    #[test]
    fn errors_name_the_field() {
        assert!(Rules::try_from(vec![]).unwrap_err().to_string().contains("at least one rule"));
        let error = rule(r#"{"unit":"minute","duration":1,"max_requests":0}"#).unwrap_err();
        assert_eq!(error, "rules[0].max_requests must be positive");
        assert!(rule(r#"{"unit":"week","duration":1,"max_requests":1}"#).is_err());
        let error =
            rule(r#"{"unit":"day","duration":1,"max_requests":1,"endpoints":["/a","a b c"]}"#).unwrap_err();
        assert_eq!(
            error,
            "rules[0].endpoints[1] must be one of GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
        );
    }

    fn rules(json: &str) -> Result<Rules, String> {
        let rules: Vec<Rule> = serde_json::from_str(json).map_err(|e| e.to_string())?;
        Rules::try_from(rules).map_err(|e| e.to_string())
    }

    #[test]
    fn two_rules_that_count_the_same_are_one_too_many() {
        let error = rules(
            r#"[{"unit":"minute","duration":1,"max_requests":5},
                {"unit":"second","duration":60,"max_requests":9,"mode":"per_key","priority":3}]"#,
        );
        assert_eq!(
            error.unwrap_err(),
            "rules[1] counts the same as rules[0]: remove the one that allows more"
        );
        let differing = rules(
            r#"[{"unit":"minute","duration":1,"max_requests":5},
                {"unit":"minute","duration":1,"max_requests":5,"mode":"per_app"},
                {"unit":"minute","duration":1,"max_requests":5,"endpoints":["/a"]},
                {"unit":"minute","duration":1,"max_requests":5,"endpoints":["/b"]},
                {"unit":"month","duration":1,"max_requests":5},
                {"unit":"calendar_month","duration":1,"max_requests":5}]"#,
        );
        assert!(differing.is_ok(), "{differing:?}");
    }

    #[test]
    fn a_scheme_has_20_rules_and_a_rule_20_endpoints_at_most() {
        let endpoints = |count: usize| {
            let endpoints: Vec<String> = (0..count).map(|n| format!("\"/{n}\"")).collect();
            let endpoints = endpoints.join(",");
            rules(&format!(r#"[{{"unit":"day","duration":1,"max_requests":1,"endpoints":[{endpoints}]}}]"#))
        };
        assert!(endpoints(20).is_ok());
        assert_eq!(endpoints(21).unwrap_err(), "rules[0].endpoints must have at most 20 entries");
        let of_seconds = |count: usize| {
            let rule = |n: usize| format!(r#"{{"unit":"second","duration":{n},"max_requests":1}}"#);
            rules(&format!("[{}]", (1..=count).map(rule).collect::<Vec<_>>().join(",")))
        };
        assert!(of_seconds(20).is_ok());
        assert_eq!(of_seconds(21).unwrap_err(), "rules must have at most 20 entries");
    }

    #[test]
    fn a_window_is_sliding_unless_it_says_otherwise() {
        let text = r#"[{"unit":"minute","duration":1,"max_requests":5,"window":"fixed","priority":0}]"#;
        let fixed = rules(text).unwrap();
        assert_eq!(fixed.limits()[0].window(), Window::Fixed { ms: 60_000 });
        assert_eq!(serde_json::to_string(&fixed).unwrap(), text, "and is written only then");
        let sliding =
            rules(r#"[{"unit":"minute","duration":1,"max_requests":5,"window":"sliding"}]"#).unwrap();
        assert_eq!(sliding.limits()[0].window(), Window::Sliding { ms: 60_000 });
        assert!(!serde_json::to_string(&sliding).unwrap().contains("window"));
        assert!(rules(r#"[{"unit":"minute","duration":1,"max_requests":5,"window":"rolling"}]"#).is_err());
    }

    #[test]
    fn rules_hold_for_their_endpoints_in_the_order_of_priority() {
        let rules = rules(
            r#"[{"unit":"minute","duration":1,"max_requests":1,"priority":9},
                {"unit":"minute","duration":2,"max_requests":2,"endpoints":["POST /v1/*","/health"],"priority":-1},
                {"unit":"minute","duration":3,"max_requests":3,"endpoints":[]}]"#,
        )
        .unwrap();
        let applicable = |method: &str, path: &str| -> Vec<i64> {
            let target = Target::parse(method, path).unwrap();
            rules.applicable(&target).into_iter().map(Limit::max).collect()
        };
        assert_eq!(applicable("POST", "/v1/users"), [2, 3, 1]);
        assert_eq!(applicable("GET", "/v1/users"), [3, 1]);
        assert_eq!(applicable("GET", "/Health/"), [2, 3, 1]);
    }

    #[test]
    fn a_high_rate_is_spread_over_shards_that_come_to_the_whole() {
        let limit = |unit: &str, duration: i32, max: i32| {
            let json = format!(r#"[{{"unit":"{unit}","duration":{duration},"max_requests":{max}}}]"#);
            rules(&json).unwrap().limits()[0].clone()
        };
        assert_eq!(limit("minute", 1, 29_999).shards(), 1);
        assert_eq!(limit("second", 1, 1_000).shards(), 3);
        assert_eq!(limit("millisecond", 1, 1).shards(), 1);
        assert_eq!(limit("millisecond", 1, 7).shards(), 7);
        assert_eq!(limit("minute", 1, 450_000).shards(), 16);
        assert_eq!(limit("minute", 1, i32::MAX).shards(), MAX_SHARDS);
        for limit in [limit("second", 1, 1_001), limit("minute", 1, i32::MAX), limit("calendar_day", 1, 5)] {
            let shares: i64 = (0..limit.shards()).map(|shard| limit.share(shard)).sum();
            assert_eq!(shares, limit.max());
            assert!((0..limit.shards()).all(|shard| limit.share(shard) >= 1));
        }
    }

    #[test]
    fn names_say_the_window() {
        for (json, name) in [
            (r#"{"unit":"minute","duration":1,"max_requests":100}"#, "100/60s"),
            (r#"{"unit":"millisecond","duration":500,"max_requests":5}"#, "5/500ms"),
            (r#"{"unit":"millisecond","duration":1500,"max_requests":5}"#, "5/1500ms"),
            (r#"{"unit":"calendar_day","duration":1,"max_requests":5}"#, "5/86400s"),
        ] {
            assert_eq!(rules(&format!("[{json}]")).unwrap().limits()[0].name(), name);
        }
    }
}
