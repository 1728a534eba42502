-- ARGV: the age of entries, their number and their size. Returns how many were removed, and whether that was all.
local bytes = tonumber(redis.call('HGET', KEYS[1], 'bytes'))
local left = redis.call('XLEN', KEYS[2])
local rows = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', '512')
local removed, size = {}, 0
for _, row in ipairs(rows) do
  local old = tonumber(row[2][4]) < now - tonumber(ARGV[2])
  if not old and left <= tonumber(ARGV[3]) and bytes <= tonumber(ARGV[4]) then break end
  removed[#removed + 1] = row[1]
  size, bytes, left = size + #row[2][2], bytes - #row[2][2], left - 1
end
if #removed > 0 then
  redis.call('XDEL', KEYS[2], unpack(removed))
  redis.call('HINCRBY', KEYS[1], 'bytes', whole(-size))
end
return { whole(#removed) }
