"""A core in Python, made from proto/core/v1 and nothing else.

Reads ADDRESS to listen on, and SEED (64 hex digits): its private key, which stays the same when it starts again. Prints a
JSON line with a token for everybody when it listens, then obeys the words on its input and says when it has:

    mute    bob may not send any more
    remove  bob is no member any more
    revoke  all tokens of alice that were issued until now are withdrawn
"""

import asyncio
import json
import os
import sys
import time
import uuid
from pathlib import Path

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).parents[2] / "proto"))
token_pb, token_grpc = grpc.protos_and_services("core/v1/token.proto")
channel_pb, channel_grpc = grpc.protos_and_services("core/v1/channel.proto")
member_pb, member_grpc = grpc.protos_and_services("core/v1/member.proto")
permission_pb, permission_grpc = grpc.protos_and_services("core/v1/permission.proto")

KEY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(os.environ["SEED"]))
ISSUER, KID = "imks", "2026"
NAMES = ["alice", "bob", "carol", "mallory"]
USERS = {name: str(uuid.uuid5(uuid.NAMESPACE_DNS, name)) for name in NAMES}
CHANNEL = str(uuid.uuid5(uuid.NAMESPACE_DNS, "lobby"))


def now_us():
    return time.time_ns() // 1000


def bits(*names):
    return sum(1 << (permission_pb.Permission.Value(f"PERMISSION_{name}") - 1) for name in names)


READER = bits("VIEW_CHANNEL", "READ_HISTORY")
WRITER = READER | bits("SEND_MESSAGES", "ADD_REACTIONS")
# What members may do; mallory is none.
granted = {USERS["alice"]: WRITER, USERS["bob"]: WRITER, USERS["carol"]: READER}
revoked = []


class Log:
    """What happened, for any number of streams: a cursor is a position in it."""

    def __init__(self, answer, starts_at_the_beginning=False):
        self.answer, self.starts_at_the_beginning = answer, starts_at_the_beginning
        self.events, self.changed = [], asyncio.Condition()

    async def add(self, **event):
        async with self.changed:
            self.events.append(event)
            self.changed.notify_all()

    async def follow(self, cursor):
        live_from = len(self.events)
        at = int(cursor) if cursor else 0 if self.starts_at_the_beginning else live_from
        if at > live_from:
            # A cursor of an earlier life.
            yield self.answer(cursor="", reset=token_pb.Reset())
            return
        while True:
            if not cursor and at == live_from:
                yield self.answer(cursor=str(at), caught_up=token_pb.CaughtUp())
            async with self.changed:
                await self.changed.wait_for(lambda: len(self.events) > at)
            at += 1
            yield self.answer(cursor=str(at), **self.events[at - 1])


revocations = Log(token_pb.WatchRevocationsResponse, starts_at_the_beginning=True)
channels = Log(channel_pb.WatchChannelsResponse)
memberships = Log(member_pb.WatchMembershipResponse)
invalidations = Log(permission_pb.WatchInvalidationsResponse)


def token(name):
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "imks", "sub": USERS[name], "username": name, "iat": now, "exp": now + 3600}
    return jwt.encode(claims, KEY, algorithm="EdDSA", headers={"kid": KID})


class Tokens(token_grpc.TokenServiceServicer):
    async def VerifyToken(self, request, context):
        try:
            claims = jwt.decode(request.token, KEY.public_key(), ["EdDSA"], audience=request.audience, issuer=ISSUER)
        except jwt.ExpiredSignatureError:
            return token_pb.VerifyTokenResponse(reason="REASON_EXPIRED")
        except jwt.InvalidTokenError:
            return token_pb.VerifyTokenResponse(reason="REASON_INVALID")
        issued_at_us = claims["iat"] * 1_000_000
        if any(it.user_id == claims["sub"] and issued_at_us <= it.revoked_at_us for it in revoked):
            return token_pb.VerifyTokenResponse(reason="REASON_REVOKED")
        return token_pb.VerifyTokenResponse(
            valid=True, user_id=claims["sub"], username=claims["username"],
            issued_at_us=issued_at_us, expires_at_us=claims["exp"] * 1_000_000,
        )

    async def GetSigningKeys(self, request, context):
        if request.etag == KID:
            return token_pb.GetSigningKeysResponse(not_modified=True, etag=KID)
        key = token_pb.SigningKey(
            issuer=ISSUER, kid=KID, algorithm="ALGORITHM_EDDSA", status="STATUS_ACTIVE",
            public_key=KEY.public_key().public_bytes_raw(),
        )
        return token_pb.GetSigningKeysResponse(keys=[key], max_age_s=300, etag=KID)

    async def WatchRevocations(self, request, context):
        async for event in revocations.follow(request.cursor):
            yield event


def lobby():
    return channel_pb.Channel(id=CHANNEL, kind="KIND_PUBLIC", name="lobby", version=1)


class Channels(channel_grpc.ChannelServiceServicer):
    async def GetChannel(self, request, context):
        if request.channel_id != CHANNEL:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such channel")
        return channel_pb.GetChannelResponse(channel=lobby())

    async def BatchGetChannels(self, request, context):
        found = [lobby()] if CHANNEL in request.channel_ids else []
        return channel_pb.BatchGetChannelsResponse(channels=found)

    async def WatchChannels(self, request, context):
        async for event in channels.follow(request.cursor):
            yield event


def membership(user_id):
    return member_pb.Membership(channel_id=CHANNEL, user_id=user_id, channel_name="lobby", joined_at_us=1)


class Members(member_grpc.MemberServiceServicer):
    async def ListUserChannels(self, request, context):
        found = [membership(request.user_id)] if request.user_id in granted else []
        return member_pb.ListUserChannelsResponse(memberships=found)

    async def ListChannelMembers(self, request, context):
        found = [membership(user) for user in granted] if request.channel_id == CHANNEL else []
        return member_pb.ListChannelMembersResponse(memberships=found)

    async def CheckMember(self, request, context):
        is_member = request.channel_id == CHANNEL and request.user_id in granted
        return member_pb.CheckMemberResponse(membership=membership(request.user_id) if is_member else None)

    async def BatchGetUsers(self, request, context):
        users = [member_pb.User(id=id, username=name) for name, id in USERS.items() if id in request.user_ids]
        return member_pb.BatchGetUsersResponse(users=users)

    async def ResolveMentions(self, request, context):
        return member_pb.ResolveMentionsResponse()

    async def WatchMembership(self, request, context):
        async for event in memberships.follow(request.cursor):
            yield event


def effective(user_id, channel_id):
    allowed = granted.get(user_id, 0) if channel_id == CHANNEL else 0
    return permission_pb.Effective(channel_id=channel_id, bits=allowed, version=1)


class Permissions(permission_grpc.PermissionServiceServicer):
    async def GetEffective(self, request, context):
        return permission_pb.GetEffectiveResponse(effective=effective(request.user_id, request.channel_id))

    async def BatchGetEffective(self, request, context):
        answers = [effective(request.user_id, channel) for channel in request.channel_ids]
        return permission_pb.BatchGetEffectiveResponse(effective=answers)

    async def Check(self, request, context):
        allowed = effective(request.user_id, request.channel_id).bits
        is_allowed = bool(allowed & (1 << (request.permission - 1)))
        return permission_pb.CheckResponse(allowed=is_allowed, visible=bool(allowed & bits("VIEW_CHANNEL")))

    async def WatchInvalidations(self, request, context):
        async for event in invalidations.follow(request.cursor):
            yield event


async def obey(word):
    user = USERS["alice" if word == "revoke" else "bob"]
    if word == "mute":
        granted[user] = READER
    elif word == "remove":
        del granted[user]
        await memberships.add(left=member_pb.WatchMembershipResponse.Left(user_id=user, channel_id=CHANNEL))
    elif word == "revoke":
        revoked.append(token_pb.Revocation(user_id=user, revoked_at_us=now_us()))
        await revocations.add(revoked=revoked[-1])
    else:
        raise ValueError(word)
    of = permission_pb.WatchInvalidationsResponse.Invalidation(user_id=user, channel_id=CHANNEL, version=2)
    await invalidations.add(invalidated=of)
    say(did=word)


def say(**fields):
    print(json.dumps(fields), flush=True)


async def main():
    server = grpc.aio.server()
    token_grpc.add_TokenServiceServicer_to_server(Tokens(), server)
    channel_grpc.add_ChannelServiceServicer_to_server(Channels(), server)
    member_grpc.add_MemberServiceServicer_to_server(Members(), server)
    permission_grpc.add_PermissionServiceServicer_to_server(Permissions(), server)
    server.add_insecure_port(os.environ["ADDRESS"])
    await server.start()
    say(listening=True, tokens={name: token(name) for name in NAMES})
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        await obey(word)
    await server.stop(None)


asyncio.run(main())
