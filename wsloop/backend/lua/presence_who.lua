-- Reads the users in a place (a facility, or the whole site), without those of workers that have died.
--
-- KEYS[1]  sorted set, see presence_update.lua
-- KEYS[2]  hash, see there
--
-- Returns the number of anonymous sockets, then the users, each once, in any order.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local anonymous, seen, result = 0, {}, {0}

for _, pair in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now), '+inf')) do
  local colon = string.find(pair, ':', 1, true)
  if not colon then
    anonymous = anonymous + tonumber(redis.call('HGET', KEYS[2], 'w' .. pair) or 0)
  else
    local user = string.sub(pair, colon + 1)
    if not seen[user] then
      seen[user] = true
      result[#result + 1] = user
    end
  end
end
result[1] = anonymous
return result
