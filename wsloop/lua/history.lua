-- Reads the top of a channel's history, and a page of what comes from an offset on, in one step.
--
-- KEYS, in one slot of a Redis Cluster:
--   1 meta: hash of the top of the history, "offset" and "id"
--   2 history: stream of messages; their ids are OFFSET-0
-- ARGV:
--   1 offset of the first message of the page; empty: only the top is wanted
--   2 number of messages of the page, at most
--   3 bytes of the page; of two messages or more those are left out that would make it larger
--   4 id to begin with where nothing was ever published: without one, nobody could tell later whether that was still so
--   5 seconds for which meta is kept at least
-- Returns offset and id of the top, and the page as XRANGE gives it.

local meta, history = KEYS[1], KEYS[2]
local top = redis.call('HMGET', meta, 'offset', 'id')
if not top[1] then
  -- Fails where Redis is full or a replica: then it is what the first message will name as the one before it.
  local made = redis.pcall('HSET', meta, 'offset', '0', 'id', ARGV[4])
  if type(made) == 'table' and made.err then
    return {'0', '-', {}}
  end
  redis.call('DEL', history)
  top = {'0', ARGV[4]}
end
if redis.call('TTL', meta) < tonumber(ARGV[5]) then
  redis.pcall('EXPIRE', meta, ARGV[5])
end

local page = {}
if ARGV[1] ~= '' then
  local size = 0
  for _, entry in ipairs(redis.call('XRANGE', history, ARGV[1] .. '-0', '+', 'COUNT', ARGV[2])) do
    size = size + #entry[2][10]
    if #page >= 2 and size > tonumber(ARGV[3]) then
      break
    end
    table.insert(page, entry)
  end
end
return {top[1], top[2], page}
