-- Reads the tops of the histories of many channels in one step, and sees to it that each has one.
--
-- KEYS, two for each channel, all in one slot of a Redis Cluster:
--   meta: hash of the top of the history, "offset" and "id"
--   history: stream of messages
-- ARGV:
--   1 the beginning of ids of empty histories: without an id, a later reader could not see whether the history was
--     deleted meanwhile
--   2 minimum of seconds for which meta is kept
-- Returns, for each channel, offset and id of the top.

local tops = {}
for i = 1, #KEYS, 2 do
  local meta, top = KEYS[i], redis.call('HMGET', KEYS[i], 'offset', 'id')
  local offset, id = top[1], top[2]
  if not offset then
    offset, id = '0', ARGV[1] .. i
    -- Fails if Redis is full or a replica: then return the id that the first message will name as the one before it.
    local made = redis.pcall('HSET', meta, 'offset', offset, 'id', id)
    if type(made) == 'table' and made.err then
      id = '-'
    else
      redis.call('DEL', KEYS[i + 1])
    end
  end
  if id ~= '-' and redis.call('TTL', meta) < tonumber(ARGV[2]) then
    redis.pcall('EXPIRE', meta, ARGV[2])
  end
  table.insert(tops, offset)
  table.insert(tops, id)
end
return tops
