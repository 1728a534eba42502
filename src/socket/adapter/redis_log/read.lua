-- ARGV: the position after which to read, how many entries at most, and the size after which there is no further one.
local answer, bytes = { epoch, whole(last), '0' }, 0
local rows = redis.call('XRANGE', KEYS[2], whole(tonumber(ARGV[2]) + 1) .. '-0', '+', 'COUNT', ARGV[3])
for i, row in ipairs(rows) do
  if i == 1 then answer[3] = string.match(row[1], '^(%d+)') end
  if bytes > tonumber(ARGV[4]) then break end
  bytes = bytes + #row[2][2]
  answer[#answer + 1] = row[2][2]
end
return answer
