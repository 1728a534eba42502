//! What the fuzz target of hostile answers reads the core's answers with.

use prost::Message;

use super::types::{
    Allowed, ChannelInfo, CustomEmoji, Effective, IncomingWebhook, Membership, Revocation, SigningKey,
    SigningKeys, UserInfo, Verdict,
};
use super::{v1, watch};

/// Reads bytes as the answer of each call to the core and as an event of each of its streams, as the client does.
/// Returns the keys that they list.
pub fn read_core_answer(bytes: &[u8]) -> Vec<SigningKey> {
    read::<v1::VerifyTokenResponse, Verdict, _>(bytes, |answer| [answer]);
    read::<v1::ListUserChannelsResponse, Membership, _>(bytes, |answer| answer.memberships);
    read::<v1::CheckMemberResponse, Membership, _>(bytes, |answer| answer.membership);
    read::<v1::BatchGetUsersResponse, UserInfo, _>(bytes, |answer| answer.users);
    read::<v1::SignInResponse, UserInfo, _>(bytes, |answer| answer.user);
    read::<v1::BatchGetChannelsResponse, ChannelInfo, _>(bytes, |answer| answer.channels);
    read::<v1::GetEffectiveResponse, Effective, _>(bytes, |answer| answer.effective);
    read::<v1::BatchGetEffectiveResponse, Effective, _>(bytes, |answer| answer.effective);
    read::<v1::CheckResponse, Allowed, _>(bytes, |answer| [answer]);
    read::<v1::Revocation, Revocation, _>(bytes, |answer| [answer]);
    read::<v1::ResolveResponse, IncomingWebhook, _>(bytes, |answer| answer.webhook);
    read::<v1::GetResponse, CustomEmoji, _>(bytes, |answer| answer.emoji);
    read::<v1::ListWorkspaceResponse, CustomEmoji, _>(bytes, |answer| answer.emoji);
    watch::fuzzing::read_event(bytes);
    let keys = read::<v1::GetSigningKeysResponse, SigningKeys, _>(bytes, |answer| [answer]);
    keys.into_iter().flat_map(|answer| answer.keys).collect()
}

/// Reads bytes as an answer, and returns those of its parts that keep the contract.
fn read<W, T, P>(bytes: &[u8], parts: fn(W) -> P) -> Vec<T>
where
    W: Message + Default,
    P: IntoIterator,
    P::Item: TryInto<T>,
{
    let answer = W::decode(bytes).ok().map(parts);
    answer.into_iter().flatten().filter_map(|part| part.try_into().ok()).collect()
}
