-- Reads messages of a channel's history backwards: the newest ones, or those before a message.
--
-- KEYS:
--   1 history: stream of messages; their ids are OFFSET-0
-- ARGV:
--   1 offset of the message before which the page ends; empty: it ends with the newest message
--   2 id of that message. If it is not there any more, no earlier one is; if another one is there, the history is a new
--     one, with other messages before it
--   3 1: that message is the first of the page
--   4 maximum number of messages
--   5 maximum bytes, which may be exceeded by the first message only
-- Returns the messages as XREVRANGE does, the newest first, and 1 if there may be earlier ones.

local history, page = KEYS[1], {}
local to = '+'
if ARGV[1] ~= '' then
  local known = redis.call('XRANGE', history, ARGV[1] .. '-0', ARGV[1] .. '-0')
  if not known[1] or known[1][2][2] ~= ARGV[2] then
    return {page, 0}
  end
  to = (ARGV[3] == '1' and '' or '(') .. ARGV[1] .. '-0'
end

-- In steps, as in history.lua: reading more than the page has would block all other clients of Redis.
local left, most, size, step = tonumber(ARGV[4]), tonumber(ARGV[5]), 0, 2
while left > 0 do
  local count = math.min(step, left)
  local found = redis.call('XREVRANGE', history, to, '-', 'COUNT', count)
  for _, entry in ipairs(found) do
    size = size + #entry[2][10]
    if #page > 0 and size > most then
      return {page, 1}
    end
    table.insert(page, entry)
  end
  if #found < count then
    return {page, 0}
  end
  left, to = left - #found, '(' .. found[#found][1]
  step = math.max(1, math.min(50, math.floor((most - size) / math.max(size / #page, 1))))
end
return {page, 1}
