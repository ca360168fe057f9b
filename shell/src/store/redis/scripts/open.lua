-- KEYS: nodes. ARGV: generation.
local is_in_force, _, number = in_force(KEYS[1], ARGV[1])
if not is_in_force then return 0 end
redis.call('HSET', KEYS[1], 'generation', ARGV[1] .. ' ' .. history() .. ' ' .. number .. ' open')
return 1
