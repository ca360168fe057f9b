-- KEYS: nodes, meta. ARGV: node, generation.
if not in_force(KEYS[1], ARGV[2]) then return 0 end
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry or is_alive(entry) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], 'floor ' .. ARGV[1])
return 1
