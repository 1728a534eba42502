//! The names and bits of permissions, as in core/v1/permission.proto and docs/rpc.md.

use crate::error::{ImksError, ImksResult};
use crate::pb::v1::Permission;

/// Returns the bit set of permissions with these names, as in docs/rpc.md.
///
/// # Errors
/// `InvalidInput` that names the permissions that exist.
pub fn permission_bits<S: AsRef<str>>(names: &[S]) -> ImksResult<u64> {
    names.iter().try_fold(0, |bits, name| {
        let wanted = format!("{PREFIX}{}", name.as_ref().trim().to_ascii_uppercase().replace('-', "_"));
        let bit = Permission::from_str_name(&wanted).and_then(Permission::bit).ok_or_else(|| {
            let known = permission_names(ALL_BITS).join(", ");
            ImksError::invalid("permission", format!("{:?} is not one of {known}", name.as_ref()))
        })?;
        Ok(bits | bit)
    })
}

/// Returns the names of the permissions in a bit set, in the order of their bits.
pub fn permission_names(bits: u64) -> Vec<&'static str> {
    let all = (1..=i32::try_from(u64::BITS).unwrap_or_default())
        .map_while(|value| Permission::try_from(value).ok());
    all.filter(|permission| permission.bit().is_some_and(|bit| bits & bit != 0))
        .map(|permission| permission.as_str_name().trim_start_matches(PREFIX))
        .collect()
}

/// The permissions of core/v1/permission.proto, all of them.
pub(super) const ALL_BITS: u64 = (1 << 13) - 1;
/// The permission without which a channel does not exist for a user.
pub(super) const VIEW_CHANNEL: u64 = 1;
const PREFIX: &str = "PERMISSION_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_have_the_names_of_the_contract_both_ways() {
        let names = permission_names(ALL_BITS);
        assert_eq!((names.len(), names[0], names[12]), (13, "VIEW_CHANNEL", "MANAGE_CHANNEL"));
        assert_eq!(permission_bits(&names).unwrap(), ALL_BITS);
        assert_eq!(permission_bits(&["view-channel", " PIN_MESSAGES"]).unwrap(), 1 | 1 << 10);
        let error = permission_bits(&["FLY"]).unwrap_err().to_string();
        assert!(error.contains("\"FLY\"") && error.contains("SEND_MESSAGES"), "{error}");
    }
}
