-- KEYS: nodes, meta. ARGV: generation, epoch, nodes.
if not in_force(KEYS[1], ARGV[1]) then return 0 end
for i = 3, #ARGV do
  if is_alive(redis.call('HGET', KEYS[1], ARGV[i])) and redis.call('EXISTS', KEYS[2]) == 1 then
    local floor = redis.call('HGET', KEYS[2], 'floor ' .. ARGV[i])
    if not floor or (floor ~= CLOSED and floor < ARGV[2]) then
      redis.call('HSET', KEYS[2], 'floor ' .. ARGV[i], ARGV[2])
    end
  end
end
return 1
