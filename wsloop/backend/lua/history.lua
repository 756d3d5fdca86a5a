-- Reads the top of a channel's history, and a page of what comes from an offset on, in one step.
--
-- KEYS, in one slot of a Redis Cluster:
--   1 meta: hash of the top of the history, "offset" and "id"
--   2 history: stream of messages; their ids are OFFSET-0
-- ARGV:
--   1 offset of the message that the client has; the page begins with it, but without what it says, if it is still there,
--     else with the first one after it; empty: only the top is wanted
--   2 number of messages of the page, at most
--   3 bytes of the page; of two messages or more those are left out that would make it larger
--   4 id to begin with where nothing was ever published: without one, nobody could tell later whether that was still so
--   5 seconds for which meta is kept at least
-- Returns offset and id of the top, the page as XRANGE gives it, and when it was read: in microseconds since the epoch.

local meta, history = KEYS[1], KEYS[2]
local now = redis.call('TIME')
now = now[1] .. string.format('%06d', now[2])
local top = redis.call('HMGET', meta, 'offset', 'id')
if not top[1] then
  -- Fails where Redis is full or a replica: then it is what the first message will name as the one before it.
  local made = redis.pcall('HSET', meta, 'offset', '0', 'id', ARGV[4])
  if type(made) == 'table' and made.err then
    return {'0', '-', {}, now}
  end
  redis.call('DEL', history)
  top = {'0', ARGV[4]}
end
if redis.call('TTL', meta) < tonumber(ARGV[5]) then
  redis.pcall('EXPIRE', meta, ARGV[5])
end

-- In steps: of large messages a page has few, and reading more than it has would keep everybody else waiting.
local page = {}
if ARGV[1] ~= '' then
  local left, most, size, from, step = tonumber(ARGV[2]), tonumber(ARGV[3]), 0, ARGV[1] .. '-0', 2
  while left > 0 do
    local found = redis.call('XRANGE', history, from, '+', 'COUNT', math.min(step, left))
    for _, entry in ipairs(found) do
      if entry[1] == ARGV[1] .. '-0' and #page == 0 then
        entry[2][10] = '' -- the client has it; its id is what is asked for
      end
      size = size + #entry[2][10]
      if #page >= 2 and size > most then
        return {top[1], top[2], page, now}
      end
      table.insert(page, entry)
    end
    if #found < math.min(step, left) then
      break
    end
    left, from = left - #found, '(' .. found[#found][1]
    step = math.max(1, math.min(50, math.floor((most - size) / math.max(size / #page, 1))))
  end
end
return {top[1], top[2], page, now}
