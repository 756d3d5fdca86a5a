-- Notes the users of one worker in a place (a facility, or the whole site), and publishes the changes of presence.
--
-- KEYS[1]  sorted set: pairs "WORKER:USER", and "WORKER" for its anonymous sockets, by when they expire (milliseconds
--          since the epoch, Redis's clock)
-- KEYS[2]  hash: "u" .. USER: number of workers where the user is; "w" .. WORKER: its anonymous sockets;
--          "anonymous": their sum; "unsaid": exists if the sum has changed since it was published
-- ARGV[1]  the worker: hexadecimal digits
-- ARGV[2]  milliseconds until its pairs expire
-- ARGV[3]  milliseconds until both keys expire
-- ARGV[4]  channel of the events; empty: publish none
-- ARGV[5]  number of the worker's anonymous sockets
-- ARGV[6]  1: publish the number of anonymous sockets if it has changed
-- ARGV[7]  1: remove expired pairs, of all workers
-- ARGV[8]  number of users that are present
-- ARGV[9]… those users, then the users that have left
--
-- Returns two lists, the users that have joined and those that have left as seen over all workers, and 1 if the number
-- of anonymous sockets was published.

local worker, channel = ARGV[1], ARGV[4]
local first_gone = 9 + tonumber(ARGV[8])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expires = now + tonumber(ARGV[2])
local came, went = {}, {}

-- One key without the other: Redis evicted it. The next refreshes of the workers note all users again.
if redis.call('EXISTS', KEYS[1], KEYS[2]) == 1 then
  redis.call('DEL', KEYS[1], KEYS[2])
end

local function enter(user)
  if redis.call('ZADD', KEYS[1], expires, worker .. ':' .. user) == 1
    and redis.call('HINCRBY', KEYS[2], 'u' .. user, 1) == 1 then
    came[#came + 1] = user
  end
end

local function leave(pair, user)
  if redis.call('ZREM', KEYS[1], pair) == 1 and redis.call('HINCRBY', KEYS[2], 'u' .. user, -1) <= 0 then
    redis.call('HDEL', KEYS[2], 'u' .. user)
    went[#went + 1] = user
  end
end

local function count_anonymous(whose, number)
  local before = tonumber(redis.call('HGET', KEYS[2], 'w' .. whose) or 0)
  if number > 0 then
    redis.call('HSET', KEYS[2], 'w' .. whose, number)
    redis.call('ZADD', KEYS[1], expires, whose)
  else
    redis.call('HDEL', KEYS[2], 'w' .. whose)
    redis.call('ZREM', KEYS[1], whose)
  end
  if number ~= before then
    redis.call('HINCRBY', KEYS[2], 'anonymous', number - before)
    redis.call('HSET', KEYS[2], 'unsaid', 1)
  end
end

-- Present users first: a user that reconnected here from a worker that died must not leave in between.
for i = 9, first_gone - 1 do
  enter(ARGV[i])
end
for i = first_gone, #ARGV do
  leave(worker .. ':' .. ARGV[i], ARGV[i])
end
count_anonymous(worker, tonumber(ARGV[5]))
if ARGV[7] == '1' then
  for _, pair in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
    local colon = string.find(pair, ':', 1, true)
    if colon then
      leave(pair, string.sub(pair, colon + 1))
    else
      count_anonymous(pair, 0)
    end
  end
end

local told = 0
if channel ~= '' then
  for _, user in ipairs(came) do
    redis.call('PUBLISH', channel, '{"event": "join", "user": ' .. cjson.encode(user) .. '}')
  end
  for _, user in ipairs(went) do
    redis.call('PUBLISH', channel, '{"event": "leave", "user": ' .. cjson.encode(user) .. '}')
  end
  -- Also if the number is the old one again: a client that read it in between has another one.
  if ARGV[6] == '1' and redis.call('HDEL', KEYS[2], 'unsaid') == 1 then
    redis.call('PUBLISH', channel, '{"event": "anonymous", "count": ' .. redis.call('HGET', KEYS[2], 'anonymous') .. '}')
    told = 1
  end
end

if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
else
  redis.call('DEL', KEYS[2])
end
return {came, went, told}
