-- KEYS[3]: the node; then the sessions to store, and those that ended. ARGV: the node, the number of its first entry, the
-- lease or nothing, the lifetime of a session, how many entries and sessions, the number of the batch, the epoch of its
-- positions, and the entries and sessions. A further attempt writes no entry again, and one that a later batch has overtaken
-- writes nothing.
local newest = redis.call('HGET', KEYS[3], 'serial')
if newest and tonumber(newest) > tonumber(ARGV[8]) then return {} end
redis.call('HSET', KEYS[3], 'serial', ARGV[8])
local lease, ttl = ARGV[4], ARGV[5]
local entries, sessions = tonumber(ARGV[6]), tonumber(ARGV[7])
local at, first, done = 10, last + 1, false
if entries > 0 then
  local known = redis.call('HMGET', KEYS[3], 'epoch', 'number', 'first')
  if known[1] == epoch and known[2] == ARGV[3] then first, done = tonumber(known[3]), true end
end
if entries > 0 and not done then
  local bytes = 0
  for i = 0, entries - 1 do
    local entry = ARGV[at + i]
    redis.call('XADD', KEYS[2], whole(first + i) .. '-0', 'e', entry, 't', whole(now))
    bytes = bytes + #entry
  end
  redis.call('HSET', KEYS[1], 'last', whole(first + entries - 1))
  redis.call('HINCRBY', KEYS[1], 'bytes', whole(bytes))
  redis.call('HSET', KEYS[3], 'epoch', epoch, 'number', ARGV[3], 'first', whole(first))
end
at = at + entries
local answer = { epoch, whole(first) }
redis.call('PEXPIRE', KEYS[3], ttl)
if epoch ~= ARGV[9] then return answer end
for i = 1, sessions do
  local key, generation, away, record, version = KEYS[3 + i], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  at = at + 4
  local old = redis.call('HMGET', key, 'epoch', 'generation')
  if old[1] == epoch and old[2] ~= generation then
    answer[#answer + 1] = whole(i - 1)
  else
    if old[1] ~= epoch then redis.call('DEL', key) end
    if away ~= '' then away = whole(now - tonumber(away)) end
    redis.call('HSET', key, 'epoch', epoch, 'generation', generation, 'node', ARGV[2], 'record', record,
      'saved', whole(now), 'away', away, 'version', version)
    redis.call('PEXPIRE', key, ttl)
  end
end
for i = 4 + sessions, #KEYS do
  if redis.call('HGET', KEYS[i], 'generation') == ARGV[at] then redis.call('DEL', KEYS[i]) end
  at = at + 1
end
if lease ~= '' then redis.call('HSET', KEYS[3], 'lease', lease, 'leased', epoch, 'seen', whole(now)) end
return answer
