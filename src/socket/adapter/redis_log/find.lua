-- KEYS[3]: the session. ARGV[2]: what the keys of nodes begin with.
local s = redis.call('HMGET', KEYS[3], 'epoch', 'generation', 'node', 'record', 'saved', 'away', 'taken', 'version')
if s[1] ~= epoch then return {} end
local node = redis.call('HMGET', ARGV[2] .. s[3], 'lease', 'leased', 'seen')
local seen, lease, taken = tonumber(s[5]), '', ''
if node[2] == epoch then
  seen = math.max(seen, tonumber(node[3]))
  lease = node[1]
end
if s[6] ~= '' then seen = tonumber(s[6]) end
if s[7] then taken = whole(now - tonumber(s[7])) end
return { epoch, whole(last), s[3], s[2], s[8], s[6] == '' and '1' or '0', whole(now - seen), taken, lease, s[4] }
