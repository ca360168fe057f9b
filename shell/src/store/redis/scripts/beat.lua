-- KEYS: nodes, meta, the inbox of each id. ARGV: number, generation seen or '', greatest number seen, generation proposed; for each
-- id: node, '1' if it has joined.
local id, began_in, number, gate = generation_of(KEYS[1])
local now = history()
if began_in ~= now or redis.call('EXISTS', KEYS[2]) == 0 or tonumber(number) < tonumber(ARGV[3]) then
  id, gate = ARGV[4], 'closed'
  number = string.format('%.0f', math.max(tonumber(number or 0), tonumber(ARGV[3])) + 1)
  redis.call('HSET', KEYS[1], 'generation', id .. ' ' .. now .. ' ' .. number .. ' ' .. gate)
  local meta = redis.call('HGETALL', KEYS[2])
  for i = 1, #meta, 2 do
    if string.sub(meta[i], 1, 6) == 'floor ' and meta[i + 1] ~= CLOSED then redis.call('HDEL', KEYS[2], meta[i]) end
  end
  redis.call('HSET', KEYS[2], 'generation', id)
end
local is_confirmed = 1
for i = 5, #ARGV, 2 do
  local entry = redis.call('HGET', KEYS[1], ARGV[i])
  if entry then
    if not is_alive(entry) then is_confirmed = 0 end
  elseif ARGV[i + 1] == '1' and ARGV[2] == id then
    is_confirmed = 0
  end
end
local inbox = {}
for i = 5, #ARGV, 2 do
  if is_confirmed == 1 then redis.call('HSET', KEYS[1], ARGV[i], 'B' .. ARGV[1]) end
  for _, member in ipairs(redis.call('SMEMBERS', KEYS[3 + (i - 5) / 2])) do inbox[#inbox + 1] = member end
end
return { is_confirmed, redis.call('HGET', KEYS[2], 'overrides'), redis.call('HGETALL', KEYS[1]), inbox }
