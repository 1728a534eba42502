-- KEYS[3]: the session. ARGV: the generation, the node that takes it, and the version if it matters. Until it is stored
-- again, the session is as its owner left it.
local s = redis.call('HMGET', KEYS[3], 'epoch', 'generation', 'away', 'version')
if s[1] ~= epoch or s[2] ~= ARGV[2] or (ARGV[4] ~= '' and s[4] ~= ARGV[4]) then return { '0' } end
redis.call('HINCRBY', KEYS[3], 'generation', '1')
redis.call('HSET', KEYS[3], 'node', ARGV[3], 'taken', whole(now), 'away', s[3] == '' and whole(now) or s[3])
return { '1' }
