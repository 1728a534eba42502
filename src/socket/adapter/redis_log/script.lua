-- What every script of the recovery log begins with. KEYS: the head of the bucket, its stream. ARGV[1]: a random epoch.
-- The epoch changes with the process of the server: one that was restarted, or a replica in its place, may have lost the
-- newest entries, whose positions must not be given out again.
if redis.replicate_commands then redis.replicate_commands() end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local head = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'last')
if head[1] ~= run then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[1], 'run', run, 'epoch', ARGV[1], 'last', '0', 'bytes', '0')
  head = { run, ARGV[1], '0' }
end
local epoch, last = head[2], tonumber(head[3])
local function whole(number) return string.format('%.0f', number) end
