//! Rate-limit rules: their shape on the wire and what makes one valid.

use serde::{Deserialize, Serialize};

use crate::text::InvalidField;

/// The unit of a rule's window. Calendar units follow UTC days and months.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    fn longest(self) -> i32 {
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

/// Whose requests a rule counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// One rule of a scheme, as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The unit of the window.
    pub unit: Unit,
    /// The window in units.
    pub duration: i32,
    /// How many requests the window admits.
    pub max_requests: i32,
    /// Whose requests count together; one key's where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Which paths it holds for; all where it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<String>>,
    /// Rules are evaluated in ascending order of this.
    #[serde(default)]
    pub priority: i32,
}

/// The rules of a scheme: 1 to 20, each valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Vec<Rule>", try_from = "Vec<Rule>")]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// The rules.
    pub fn as_slice(&self) -> &[Rule] {
        &self.0
    }
}

impl From<Rules> for Vec<Rule> {
    fn from(rules: Rules) -> Self {
        rules.0
    }
}

impl TryFrom<Vec<Rule>> for Rules {
    type Error = InvalidField;

    fn try_from(rules: Vec<Rule>) -> Result<Self, InvalidField> {
        if rules.is_empty() {
            return Err(InvalidField::new("rules", "must include at least one rule"));
        }
        if rules.len() > 20 {
            return Err(InvalidField::new("rules", "must be at most 20"));
        }
        for (index, rule) in rules.iter().enumerate() {
            check(rule).map_err(|(member, problem)| {
                InvalidField::new(&format!("rules[{index}].{member}"), problem)
            })?;
        }
        Ok(Self(rules))
    }
}

fn check(rule: &Rule) -> Result<(), (&'static str, String)> {
    let longest = rule.unit.longest();
    if !(1..=longest).contains(&rule.duration) {
        return Err(("duration", format!("must be 1 to {longest} for this unit")));
    }
    if rule.max_requests < 1 {
        return Err(("max_requests", "must be positive".into()));
    }
    let endpoints = rule.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > 20 {
        return Err(("endpoints", "must be at most 20".into()));
    }
    let fits = |e: &String| !e.trim().is_empty() && e.len() <= 128 && !e.chars().any(char::is_control);
    if !endpoints.iter().all(fits) {
        return Err(("endpoints", "must each be 1 to 128 printable characters".into()));
    }
    Ok(())
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
        for (unit, longest) in [
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
            assert!(of(longest).is_ok(), "{unit}");
            assert!(of(longest + 1).is_err(), "{unit}");
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
    fn what_is_refused_is_named() {
        assert!(Rules::try_from(vec![]).unwrap_err().to_string().contains("at least one rule"));
        let error = rule(r#"{"unit":"minute","duration":1,"max_requests":0}"#).unwrap_err();
        assert_eq!(error, "rules[0].max_requests must be positive");
        assert!(rule(r#"{"unit":"week","duration":1,"max_requests":1}"#).is_err());
        assert!(rule(r#"{"unit":"day","duration":1,"max_requests":1,"endpoints":[" "]}"#).is_err());
    }
}
