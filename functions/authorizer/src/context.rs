//! The context of a decision for the backend behind an API Gateway: strings by name.

use std::collections::BTreeMap;

use keyward_core::permission::Permission;
use keyward_core::text::OwnerId;
use keyward_verifier::Decision;

/// Texts by their names: API Gateway takes no lists and no objects.
pub(crate) type Context = BTreeMap<String, String>;

/// The members that can be done without, in the order in which they are left out where there is not enough room.
const OPTIONAL_MEMBERS: [&str; 3] = ["metadata", "permissions", "rate_limits"];
/// Where it says what was left out.
const TRUNCATED: &str = "truncated";

/// The complete context, for every form of response.
pub(crate) fn of(decision: &Decision) -> Context {
    let Decision { request_id, key, permissions, limits, denied } = decision;
    let blocked = denied.as_ref().map(|denial| denial.blocked_by().to_string());
    let limits = serde_json::to_string(limits).ok().filter(|_| !limits.is_empty());
    let permissions: Vec<&str> = permissions.iter().map(Permission::as_str).collect();
    let id = |id: &Option<OwnerId>| id.as_ref().map(OwnerId::to_string);
    let owner = &key.owner;
    let members = [
        ("request_id", Some(request_id.to_string())),
        ("key_id", Some(key.id.to_string())),
        ("key_name", Some(key.name.to_string())),
        ("app_slug", Some(key.app_slug.to_string())),
        ("deployment_id", Some(key.deployment_id.to_string())),
        ("permissions", Some(permissions.join(","))),
        ("metadata", Some(key.metadata.to_string())),
        ("rate_limits", limits),
        ("blocked_rule", blocked),
        ("retry_after", decision.retry_after().map(|seconds| seconds.to_string())),
        ("owner_user_id", id(&owner.owner_user_id)),
        ("organization_id", id(&owner.organization_id)),
        ("workspace_id", id(&owner.workspace_id)),
        ("organization_membership_id", id(&owner.organization_membership_id)),
        ("workspace_membership_id", id(&owner.workspace_membership_id)),
    ];
    members.into_iter().filter_map(|(name, text)| Some((name.to_owned(), text?))).collect()
}

/// As much of a context as there is room for, in bytes of JSON.
pub(crate) fn fit(mut context: Context, room: usize) -> Context {
    let mut left_out = Vec::new();
    for name in OPTIONAL_MEMBERS {
        if size(&context) <= room {
            break;
        }
        if context.remove(name).is_some() {
            left_out.push(name);
            context.insert(TRUNCATED.to_owned(), left_out.join(","));
        }
    }
    context
}

/// The length of the JSON of a value, in bytes.
pub(crate) fn size(of: &impl serde::Serialize) -> usize {
    serde_json::to_vec(of).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_left_out_before_permissions_and_nothing_else_is() {
        let members = [("key_id", 5), ("permissions", 300), ("metadata", 100), ("key_name", 50)];
        let context: Context =
            members.map(|(name, length)| (name.to_owned(), "x".repeat(length))).into_iter().collect();
        let names = |room| fit(context.clone(), room).into_keys().collect::<Vec<_>>().join(" ");
        let whole = size(&context);
        assert_eq!(names(whole), "key_id key_name metadata permissions");
        assert_eq!(names(whole - 1), "key_id key_name permissions truncated");
        assert_eq!(names(300), "key_id key_name truncated");
        assert_eq!(names(0), "key_id key_name truncated");
        assert_eq!(fit(context, 300)["truncated"], "metadata,permissions");
    }
}
