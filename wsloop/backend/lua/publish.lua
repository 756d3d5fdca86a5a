-- Publishes one message to one or several channels: adds it to their histories, retains it as their last message, and
-- publishes it, in one step, so that the order of the history is the order of arrival.
--
-- KEYS, four for each channel, all in one slot of a Redis Cluster:
--   the channel, which is also the key of its last message (as in ws4redis)
--   meta: hash of the top of the history: "offset", a number, and "id" of the message there
--   history: stream of messages; their ids are OFFSET-0
--   once: exists if this message has been published already
-- ARGV:
--   1 the message
--   2 its id, different for each message; the same in all channels
--   3 seconds for which it is retained as the last message; 0: it is not
--   4 number of messages in the history; 0: no history
--   5 seconds for which the history is kept
--   6 seconds for which meta is kept: it must outlive the history
--   7 seconds for which a message with the same idempotency key is not published again; 0: there is no key
--   8 the beginning of a message with a header; empty: the message is published bare
--   9 "s" if the message is published to several channels, else "-"
--   10 the own channel of a process that publishes for a socket: notes are published there before and after; empty: none
--   11 the note before
-- Returns, for each channel, the number of connections that have got the message; -1 if it was published already.

local message, id = ARGV[1], ARGV[2]
local expire, size, ttl, kept, once = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6], tonumber(ARGV[7])
local head, several, own = ARGV[8], ARGV[9], ARGV[10]
local now = redis.call('TIME')
local time = now[1] .. string.format('%06d', now[2])
local reached = {}

if own ~= '' then
  redis.call('PUBLISH', own, ARGV[11])
end
for i = 1, #KEYS, 4 do
  local channel, meta, history = KEYS[i], KEYS[i + 1], KEYS[i + 2]
  if once > 0 and redis.call('EXISTS', KEYS[i + 3]) == 1 then
    table.insert(reached, -1)
  else
    local offset, previous = 0, '-'
    if size > 0 then
      local top = redis.call('HMGET', meta, 'offset', 'id')
      if not top[1] and redis.call('EXISTS', history) == 1 then
        redis.call('DEL', history) -- its top is not known any more
      end
      offset, previous = tonumber(top[1] or 0) + 1, top[2] or '-'
      local entry = string.format('%.0f-0', offset)
      redis.call('XADD', history, 'MAXLEN', size, entry, 'i', id, 'p', previous, 's', several, 't', time,
        'd', message)
      redis.call('HSET', meta, 'offset', string.format('%.0f', offset), 'id', id)
      redis.call('EXPIRE', history, ttl)
      redis.call('EXPIRE', meta, kept)
    end
    if expire > 0 then
      redis.call('SET', channel, message, 'EX', expire)
    end
    if once > 0 then -- the last command that can fail: a retry must neither be dropped for nothing, nor publish twice
      redis.call('SET', KEYS[i + 3], id, 'EX', once)
    end
    local published = message
    if head ~= '' then
      published = head .. string.format('%.0f %s %s %s %s', offset, id, previous, several, time) .. '\n' .. message
    end
    table.insert(reached, redis.call('PUBLISH', channel, published))
  end
end
if own ~= '' then
  redis.call('PUBLISH', own, 'origin')
end
return reached
