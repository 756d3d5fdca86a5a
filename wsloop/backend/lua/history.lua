-- Reads the top of a channel's history, and a page of its messages from an offset on, in one step.
--
-- KEYS, in one slot of a Redis Cluster:
--   1 meta: hash of the top of the history, "offset" and "id"
--   2 history: stream of messages; their ids are OFFSET-0
-- ARGV:
--   1 offset of the last message that the client has; the page begins with that message, without its payload, if it
--     still exists, else with the first one after it
--   2 maximum number of messages of the page
--   3 maximum bytes of the page, which may be exceeded by its first two messages only
--   4 id of an empty history: without an id, a later reader could not see whether the history was deleted meanwhile
--   5 minimum of seconds for which meta is kept
-- Returns offset and id of the top, the page as XRANGE returns it, and the time in microseconds since the epoch.

local meta, history = KEYS[1], KEYS[2]
local now = redis.call('TIME')
now = now[1] .. string.format('%06d', now[2])
local top = redis.call('HMGET', meta, 'offset', 'id')
if not top[1] then
  -- Fails if Redis is full or a replica: then return the id that the first message will name as the one before it.
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

-- In steps: a page has few large messages, and reading more than it needs would block all other clients of Redis.
local page = {}
local left, most, size, from, step = tonumber(ARGV[2]), tonumber(ARGV[3]), 0, ARGV[1] .. '-0', 2
while left > 0 do
  local found = redis.call('XRANGE', history, from, '+', 'COUNT', math.min(step, left))
  for _, entry in ipairs(found) do
    if entry[1] == ARGV[1] .. '-0' and #page == 0 then
      entry[2][10] = '' -- the client has the payload; only the id is needed
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
return {top[1], top[2], page, now}
