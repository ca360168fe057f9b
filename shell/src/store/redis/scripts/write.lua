-- KEYS: meta, records; with sessions that end or have closed, or something to tell: nodes, the inbox of each session.
-- ARGV: user, generation, floor of the node, epoch, stamp expected or '', overrides expected or '', value or '' to delete it;
-- if there is more: number of sessions that end; for each: node, member of its inbox, channel; number of sessions that have closed;
-- for each: member of its inbox; then channels and messages.
-- Messages may be lost: whoever may not publish them still writes.
-- Answers the version of the overrides if it has written, else what is there.
local user = ARGV[1]
local versions = redis.call('HMGET', KEYS[1], 'generation', 'overrides', ARGV[3])
local value = redis.call('HGET', KEYS[2], user)
local stamp = value and string.sub(value, 1, 8) or ''
local is_decided_on = ARGV[6] == '' or ARGV[6] == (versions[2] or NO_OVERRIDES)
if stamp ~= ARGV[5] or not is_decided_on or not takes(versions, ARGV[2], ARGV[4]) then
  return { versions[1], versions[2], value }
end
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[2], user, ARGV[7])
elseif value then
  redis.call('HDEL', KEYS[2], user)
end
if ARGV[8] then
  local key, at = 4, 9
  for _ = 1, tonumber(ARGV[8]) do
    if is_alive(redis.call('HGET', KEYS[3], ARGV[at])) then
      redis.call('SADD', KEYS[key], ARGV[at + 1])
      redis.pcall('PUBLISH', ARGV[at + 2], 'c' .. user)
    end
    key, at = key + 1, at + 3
  end
  local closed = tonumber(ARGV[at])
  for i = 1, closed do redis.call('SREM', KEYS[key - 1 + i], ARGV[at + i]) end
  for i = at + closed + 1, #ARGV, 2 do redis.pcall('PUBLISH', ARGV[i], ARGV[i + 1]) end
end
return versions[2] or NO_OVERRIDES
